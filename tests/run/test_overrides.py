"""Text stays text, whatever Hydra or YAML would make of it; and what they cannot read is one line that says where."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from joblib.externals.loky import get_reusable_executor
from omegaconf import OmegaConf

from cl_powerprop import compose
from cl_powerprop.config import repeatable_yaml
from cl_powerprop.config_files import with_text
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.overrides import keep_text, prepare
from cl_powerprop.stored_config import load_config

from .conftest import Command

Capture = pytest.CaptureFixture[str]

NOT_A_NUMBER = ["20240101_1200", "1e5", "1_1_1", "+5", "0.10", "true", "False", "inf", "NaN", "007", "-1", "1_0.5e-3"]
UNREADABLE = [
    "~/x",
    "r/été",
    "größe",
    "日本",
    "a#b",
    "a&b;c",
    "<x>",
    "it's",
    'say "x"',
    "a=b",
    "r[1]",
    "f(1)",
    "x!",
    "a b(c",
]


def read(word: str) -> Any:
    """What Hydra makes of an override."""
    return OverridesParser.create().parse_override(keep_text(word)).value()


@pytest.mark.parametrize("text", [*NOT_A_NUMBER, *UNREADABLE])
@pytest.mark.parametrize("key", ["run_dir", "data.root", "logger.wandb.group", "logger.wandb.project", "hydra.run.dir"])
def test_text_on_the_command_line_stays_text(key: str, text: str) -> None:
    assert read(f"{key}={text}") == text


@pytest.mark.parametrize("text", [*NOT_A_NUMBER, *UNREADABLE])
def test_text_in_a_list_stays_text(text: str) -> None:
    assert read(f"logger.wandb.tags=[plain,{text}]") == ["plain", text]


def test_no_value_is_no_value_where_there_can_be_none() -> None:
    for null in ("null", "NULL"):
        assert read(f"logger.wandb.group={null}") is None
        assert read(f"run_dir={null}") == null
    assert read("logger.wandb.group='null'") == "null"
    assert read("logger.wandb.tags=[null]") == ["null"]


def test_what_has_quotes_or_is_no_text_is_left_alone() -> None:
    for word in (
        *("run_dir='a,b'", 'run_dir="x y"', "run_dir=", "run_dir=runs/${now:%Y}", r"run_dir=a\,b", "seed=1_0"),
        *("model.hidden=[1_0,2]", "optimizer.lr=1e-3", "packnet.shares=1e-1", "+unknown=1_1", "strategy=naive,epn"),
        *("experiment=null", "logger=[wandb,tensorboard]", "logger=[]", "references=[]", "~logger", "--multirun"),
        *("seed=range(3)", "experiment=glob(quickstart/*)", "hydra.launcher.n_jobs=2", "save_model=true"),
    ):
        assert keep_text(word) == word


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("logger.wandb.group=1_1,abc,1e5,null", "logger.wandb.group='1_1',abc,'1e5',null"),
        ("logger.wandb.group=choice(1_1,é)", "logger.wandb.group=choice('1_1','é')"),
        ("logger.wandb.group=shuffle(1_1,abc,seed=3)", "logger.wandb.group=shuffle('1_1',abc,seed=3)"),
        ("logger.wandb.tags=[1_1],[a,2]", "logger.wandb.tags=['1_1'],[a,'2']"),
        ("++run_dir=1_1", "++run_dir='1_1'"),
        ("hydra.sweep.dir=1_1", "hydra.sweep.dir='1_1'"),
        ("hydra.job.name=1e5", "hydra.job.name='1e5'"),
        ("experiment=2024_01,x", "experiment='2024_01',x"),
        (r"run_dir=é\,x", "run_dir='é,x'"),
        ("run_dir=it's,that's", """run_dir="it's","that's\""""),
        ("run_dir=é\\", r"run_dir='é\\'"),
    ],
)
def test_the_quotes_that_are_put(word: str, kept: str) -> None:
    assert keep_text(word) == kept


@pytest.mark.slow
def test_a_sweep_over_text_and_the_folder_that_is_named_by_it(command: Command) -> None:
    words = ("data=digits", "strategy=untrained", "benchmark.n_tasks=1", "progress=false", "save_model=false")
    get_reusable_executor().shutdown(wait=True)  # processes of an earlier test are in its folder
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/text.yaml").write_text("# @package _global_\nreferences_dir: 1_1\n")
    mine = ("-m", "--config-dir", "mine", *words)  # the jobs run in processes of their own
    assert command("run", *mine, "references_dir=1_0,1e5", "run_dir=20240101_1200") == 0
    assert [config_of(f"20240101_1200/{job}")["references_dir"] for job in (0, 1)] == ["1_0", "1e5"]
    assert command("run", *mine, "experiment=text", "seed=0,1", "run_dir=filed") == 0
    assert [config_of(f"filed/{job}")["references_dir"] for job in (0, 1)] == ["1_1", "1_1"]
    assert command("run", *words, "run_dir=1e5") == 0
    assert Path("1e5/run.json").exists()


def config_of(folder: str) -> Any:
    return yaml.safe_load(Path(folder, "config.yaml").read_text())


FILE = """
defaults:
  - override /logger: wandb
run_dir: {0}
seed: 1_0
data:
  root: {0}
logger:
  wandb:
    group: {0}
    tags: [{0}, plain]
    entity: null
"""


@pytest.mark.parametrize("text", [*NOT_A_NUMBER, "on", "no", "12:30", "0x10", "0o7", "2024-01-01", "1."])
def test_text_in_a_file_stays_text(text: str) -> None:
    content = FILE.format(text)
    values: Any = with_text(OmegaConf.to_container(OmegaConf.create(content)), content)
    assert [values["run_dir"], values["data"]["root"], values["logger"]["wandb"]["group"]] == [text] * 3
    assert values["logger"]["wandb"]["tags"] == [text, "plain"]
    assert values["logger"]["wandb"]["entity"] is None
    assert values["seed"] == 10, "a number stays a number"


def test_a_file_of_a_config_folder_is_read_so(command: Command, capsys: Capture) -> None:
    Path("mine/experiment").mkdir(parents=True)
    Path("mine/experiment/2024_01.yaml").write_text(f"# @package _global_{FILE.format('1_1')}", encoding="utf-8")
    assert command("run", "--config-dir", "mine", "experiment=2024_01", "--cfg", "job") == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert [values["run_dir"], values["data"]["root"], values["logger"]["wandb"]["group"]] == ["1_1"] * 3
    assert values["logger"]["wandb"]["tags"] == ["1_1", "plain"]


def test_text_in_a_file_of_a_group(command: Command, capsys: Capture) -> None:
    Path("mine/data").mkdir(parents=True)
    Path("mine/data/here.yaml").write_text("name: mnist\nroot: 1_1\ndownload: false\n")
    assert command("run", "--config-dir", "mine", "data=here", "--cfg", "job") == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["root"] == "1_1"


def test_text_survives_the_config_of_a_run() -> None:
    texts = [*NOT_A_NUMBER, "on", "12:30", "r/été", "null", "~", "'"]
    config = compose(["logger=[wandb]"])
    config.logger["wandb"].tags = texts
    Path("config.yaml").write_text(repeatable_yaml(config), encoding="utf-8")
    assert load_config(Path.cwd()).logger["wandb"].tags == texts


def test_a_folder_of_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = compose(["run_dir=~/r", "references_dir=~/é", "logger=[wandb]", "logger.wandb.dir=~/x"])
    assert config.run_dir == str(tmp_path / "r")
    assert config.references_dir == str(tmp_path / "é")
    assert config.logger["wandb"].dir == str(tmp_path / "x")


@pytest.mark.slow
def test_a_run_in_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: Command) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    words = ("data=digits", "strategy=untrained", "benchmark.n_tasks=1", "progress=false", "run_dir=~/r/été")
    assert command("run", *words) == 0
    assert json.loads((tmp_path / "home/r/été/run.json").read_text())["status"] == "complete"


UNEXPLAINED = ("Lexer", "mismatched", "hydra.cc", "extraneous")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.hidden=[1;2]", ["'model.hidden=[1;2]'", "character 16, ';'", "a list of whole numbers"]),
        ("seed=1#", ["'seed=1#'", "character 7, '#'", "seed is a whole number"]),
        ("seed=1=2", ["'seed=1=2'", "character 7, '='"]),
        ("optimizer.lr=~1", ["character 14, '~'", "optimizer.lr is a number"]),
        ("model.hidden=[1,2", ["'model.hidden=[1,2'", "missing at its end"]),
        ("stratégie=naive", ["'stratégie=naive'", "character 6, 'é'", "letters, digits"]),
        ("+mine=é", ["character 7, 'é'", "needs quotes", """'+mine="é"'"""]),
        ("seed", ["'seed'", "seed=VALUE"]),
        ("seed=f(1)", ["'seed=f(1)'", "Unknown function 'f'"]),
        ("seed=1,2", ["seed=1,2 has several values", "add -m"]),
        ("run_dir=a,b", ["run_dir=a,b has several values", "add -m", """'run_dir="a,b"'"""]),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_where(word: str, said: list[str]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        compose([word])
    for part in said:
        assert part in str(raised.value)
    assert not [part for part in UNEXPLAINED if part in str(raised.value)]


ALPHAS = "strategy.alpha (strategy=derpp, strategy=lwf, strategy=mas)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("alpha=2", f"did you mean model.alpha or {ALPHAS}?"),
        ("gamma=0.5", "did you mean strategy.gamma (strategy=epn)?"),
        ("lr=0.1", "did you mean optimizer.lr?"),
        ("epochs=3", "did you mean train.epochs?"),
        ("n_tasks=3", "did you mean benchmark.n_tasks?"),
        ("batch_size=3", "did you mean train.batch_size?"),
        ("project=x", "did you mean logger.wandb.project?"),
        ("aplha=2", f"did you mean model.alpha or {ALPHAS}?"),
        ("model.lr=1", "did you mean optimizer.lr?"),
        ("train.scenario=class", "did you mean benchmark.scenario?"),
        ("+alpha=2", f"did you mean model.alpha or {ALPHAS}?"),
        ("sed=1", "did you mean 'seed'?"),
        ("strategy.gama=1", "did you mean 'gamma'?"),
    ],
)
def test_an_option_in_the_wrong_place_is_found(word: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        compose([word])
    assert f"; {meant} choose from: " in str(raised.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["references=joint"], r"references: is a list, with brackets even for one value: 'references=\[...\]'"),
        (["logger=[wandb]", "logger.wandb.tags=a"], "logger.wandb.tags: is a list, with brackets"),
        (
            ["model.norm=none"],
            r"unknown option 'model.norm'; choose from: .*; model=convnet, model=resnet18, model=wide_resnet can",
        ),
        (
            ["benchmark=split", "benchmark.angles=[0,30]"],
            r"unknown option 'benchmark.angles'; .*; benchmark=rotated can",
        ),
        (
            ["strategy=epn", "strategy.shares=0.3"],
            r"unknown option 'strategy.shares'; choose from: .*strategy=packnet can",
        ),
        (["wandb.mode=offline"], "unknown option 'wandb'; did you mean logger.wandb"),
    ],
)
def test_options_of_other_parts_and_lists_are_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        compose(words)
    assert "\n" not in str(raised.value)
    assert str(raised.value).count("did you mean") <= 1


def test_an_option_can_go_with_a_sweep_over_parts_whose_default_lacks_it() -> None:
    words = ["-m", "sparsity=set,gradual", "sparsity.every=10", "model.width=4", "optimizer.lr=0.1"]
    assert prepare(words) == ["-m", "sparsity=set,gradual", "++sparsity.every=10", "model.width=4", "optimizer.lr=0.1"]
    assert prepare(["sparsity=set", "sparsity.every=10"]) == ["sparsity=set", "sparsity.every=10"]
