"""A package from outside the project, one file a part: it works as what is ours does, and nothing of ours is edited."""

import json
import re
from pathlib import Path

import pytest
import yaml
from joblib.externals.loky import get_reusable_executor

from cl_powerprop import compose, registry, run
from cl_powerprop.errors import ConfigurationError

from ..run.conftest import tree
from ..run.test_resume import assert_same, cut_off
from .conftest import ALL, OURS, Command, OneLine

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]

# What each file of the package adds: group, name, the first line of its docstring, and the file.
ADDED = [
    ("benchmark", "shifted", "Every task shows all classes, moved to the right by some pixels.", "sequence"),
    ("data", "bars", "Noisy bars of 8 x 8 pixels in four places.", "dataset"),
    ("model", "wide", "One wide hidden layer.", "model"),
    ("strategy", "anchored", "Weights are held where the task before left them.", "strategy"),
    ("optimizer", "rmsprop", "RMSprop.", "optimizer"),
    ("sparsity", "even", "Pruning by magnitude, the same number of weights each time.", "sparsity"),
    ("logger", "lines", "A line of text for each test accuracy, in the run folder.", "sink"),
]


def with_parts(*words: str) -> list[str]:
    return ["--import", "my_parts", *words]


def test_list_shows_what_was_added_and_without_the_import_it_does_not(
    my_parts: Path, command: Command, capsys: Capture
) -> None:
    assert command("list") == 0
    before = capsys.readouterr().out.splitlines()
    assert command(*with_parts("list")) == 0
    after = capsys.readouterr().out.splitlines()
    added = {" ".join(line.split()) for line in after} - {" ".join(line.split()) for line in before}
    assert added >= {f"{name} {description} (my_parts.{file})" for _, name, description, file in ADDED}
    assert "worst_task accuracy of the worst task" in added, "a metric"
    assert {" ".join(line.split()) for line in before} <= {" ".join(line.split()) for line in after}, "ours all stay"


def test_a_run_of_nothing_but_added_parts(my_parts: Path, command: Command, capsys: Capture) -> None:
    assert command(*with_parts("run", *ALL, "strategy.strength=0.2", "data.noise=80", "run_dir=run")) == 0
    out = capsys.readouterr().out
    assert "anchored" in out
    record = json.loads(Path("run/run.json").read_text())
    recorded = record | {"sparsity": record["controller"]}
    names = {group: recorded[group] for group, *_ in ADDED if group != "logger"}
    assert names == {group: name for group, name, *_ in ADDED if group != "logger"}
    assert record["status"] == "complete"
    assert record["messages"] == []
    matrix = [line.split(",") for line in Path("run/accuracy_matrix.csv").read_text().splitlines()]
    assert matrix[0] == ["shift_0", "shift_1", "shift_2"]
    assert record["metrics"]["worst_task"] == min(map(float, matrix[-1]))
    assert record["metrics"]["average_accuracy"] > 0.4, "there are four classes"
    written = Path("run/lines.txt").read_text().splitlines()
    assert [line.split()[:2] for line in written[:-1]] == [[str(k), str(j)] for k in (1, 2, 3) for j in range(k)]
    assert written[-1] == f"complete {record['metrics']['average_accuracy']}"
    assert record["lines"] == {"opened": 1}, "what the sink remembers"
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["strategy"] == {"name": "anchored", "strength": 0.2, "norms": None}
    assert config["data"]["noise"] == 80
    assert (config["sparsity"]["every"], config["sparsity"]["target"]) == (2, 0.5)
    assert record["metrics"]["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert config["logger"] == {"lines": {"file": "lines.txt"}}
    (layer,) = (line for line in Path("run/weights.csv").read_text().splitlines()[1:2])
    assert layer
    total = sum(int(line.rpartition(",")[2]) for line in Path("run/weights.csv").read_text().splitlines()[1:])
    assert total == 64 * 16, "model.units=16, over 8 x 8 pixels"


def test_a_run_repeats_from_its_own_config(my_parts: Path, command: Command) -> None:
    assert command(*with_parts("run", *ALL, "run_dir=first")) == 0
    assert command(*with_parts("repeat", "first", "run_dir=again")) == 0
    first, again = tree(Path("first")), tree(Path("again"))
    for file in ("accuracy_matrix.csv", "config.yaml", "lines.txt", "weights.csv"):
        assert again[file] == first[file], file


@pytest.mark.slow
def test_a_sweep_in_two_processes_and_its_comparison(my_parts: Path, command: Command, capsys: Capture) -> None:
    get_reusable_executor().shutdown(wait=True)  # its processes may have begun in the folder of another test
    words = [word for word in ALL if not word.startswith("strategy=")]
    sweep = ("strategy=anchored,naive", "anchored.strength=0.3", "hydra.launcher.n_jobs=2", "run_dir=sweep")
    assert command(*with_parts("run", "-m", *words, *sweep)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    records = [json.loads(Path(f"sweep/{job}/run.json").read_text()) for job in (0, 1)]
    assert [record["strategy"] for record in records] == ["anchored", "naive"]
    assert len({record["process"] for record in records}) == 2, "two processes"
    assert {record["status"] for record in records} == {"complete"}
    for job, record in enumerate(records):
        assert Path(f"sweep/{job}/lines.txt").read_text().endswith(f"{record['metrics']['average_accuracy']}\n")
    assert yaml.safe_load(Path("sweep/0/config.yaml").read_text())["strategy"]["strength"] == 0.3
    assert command(*with_parts("compare", "sweep", "--metric", "worst_task", "--out", "out")) == 0
    shown = capsys.readouterr().out
    assert "shifted on bars" in shown
    summary = [line.split(",") for line in Path("out/summary.csv").read_text().splitlines()]
    column = {name: position for position, name in enumerate(summary[0])}
    means = {line[column["group"]]: float(line[column["mean"]]) for line in summary[1:]}
    assert means == pytest.approx({each["strategy"]: each["metrics"]["worst_task"] for each in records})
    assert "accuracy of the worst task" in Path("out/report.html").read_text()


def test_a_comparison_needs_no_import(my_parts: Path, command: Command, capsys: Capture) -> None:
    assert command(*with_parts("run", *ALL, "run_dir=run")) == 0
    for name in [name for name in registry._metrics if name == "worst_task"]:
        del registry._metrics[name]
    for group, name, *_ in ADDED:
        del registry._parts[group][name]
    capsys.readouterr()
    assert command("compare", "run", "--out", "out") == 0
    assert "shifted on bars" in capsys.readouterr().out


def test_resumed_is_never_cut_off(my_parts: Path, command: Command) -> None:
    """The strategy's state is taken up again, and its anchors pull."""
    registry.import_modules(["my_parts"])
    words = [*ALL, "strategy.strength=3"]
    whole = run(words, "whole").path
    with cut_off(task=2, epoch=0):
        run(words, "run")
    assert json.loads(Path("run/run.json").read_text())["trained_tasks"] == 2
    assert command(*with_parts("resume", "run")) == 0
    assert_same(Path("run"), whole)
    record = json.loads(Path("run/run.json").read_text())
    assert record["lines"] == {"opened": 2}, "the sink knows that the run was resumed"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("strategy.strenght=1", "unknown option 'strategy.strenght'; did you mean 'strength'?"),
        ("strategy.strength=much", "strategy.strength: Value 'much' of type 'str' could not be converted to Float"),
        ("strategy.norms=3", "strategy.norms"),
        ("strategy.norms=[1,x]", "Value 'x' of type 'str' could not be converted to Integer"),
        ("benchmark.stepp=2", "unknown option 'benchmark.stepp'; did you mean 'step'?"),
        ("benchmark.step=far", "benchmark.step: Value 'far'"),
        ("benchmark.validation=300", "benchmark.validation=300.0 of 300 training samples leaves nothing to train"),
        ("data.nois=2", "unknown option 'data.nois'; did you mean 'noise'?"),
        ("data.noise=loud", "data.noise: Value 'loud'"),
        ("model.unit=2", "unknown option 'model.unit'; did you mean 'units'?"),
        ("model.units=few", "model.units: Value 'few'"),
        ("model.heads=many", "model.heads must be one of shared, per_task, not 'many'"),
        ("optimizer.smooth=2", "unknown option 'optimizer.smooth'"),
        ("optimizer.lr=fast", "optimizer.lr: Value 'fast'"),
        ("sparsity.evry=3", "unknown option 'sparsity.evry'; did you mean 'every'?"),
        ("sparsity.every=0", "sparsity.every must be at least 1 step, not 0"),
        ("sparsity.target=1", "sparsity.target must be in [0, 1), not 1"),
        ("even.every=often", "even.every: Value 'often'"),
        ("logger.lines.fil=x", "unknown option 'logger.lines.fil'; did you mean 'file'?"),
        ("anchored.strenght=1", "unknown option 'anchored.strenght'; did you mean 'strength'?"),
        ("wide.units=few", "wide.units: Value 'few'"),
        ("rmsprop.smoothing=x", "rmsprop.smoothing: Value 'x'"),
        ("sparsity=evn", "unknown sparsity 'evn'; choose from: even, gradual, "),
        ("strategy=anchord", "unknown strategy 'anchord'; choose from: agem, anchored, "),
        ("logger=[line]", "unknown logger 'line'; choose from: lines, "),
    ],
)
def test_a_mistake_is_one_line_as_for_ours(
    my_parts: Path, command: Command, one_line: OneLine, word: str, said: str
) -> None:
    words = [each for each in ALL if each.partition("=")[0] != word.partition("=")[0]]
    assert command(*with_parts("run", *words, word, "run_dir=run")) == 2
    assert said in one_line()
    assert not Path("run/run.json").exists()


def test_a_value_without_default_must_be_given(my_parts: Path, command: Command, one_line: OneLine) -> None:
    """Also where the options of one of ours are taken over: its defaults stand in its YAML file."""
    file = my_parts / "strategy.py"
    file.write_text(file.read_text().replace("strength: float = 0.1", "strength: float"))
    assert command(*with_parts("run", *ALL, "run_dir=run")) == 2
    assert one_line() == "cl-powerprop: error: strategy.strength must be given; it has no default"
    assert command(*with_parts("run", *ALL, "strategy.strength=1", "run_dir=run")) == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["strategy"]["strength"] == 1.0


def test_parts_of_theirs_and_ours_mix(my_parts: Path, command: Command) -> None:
    """A sequence of theirs on data of ours; data of theirs in a sequence of ours, with a mask strategy of ours."""
    assert command(*with_parts("run", *OURS, "benchmark=shifted", "strategy=naive", "run_dir=a")) == 0
    words = ("data=bars", "benchmark=split", "strategy=epn", "model=wide", "optimizer=rmsprop", "model.bias=per_task")
    tiny = ("benchmark.n_tasks=2", "train.epochs=2", "progress=false")
    assert command(*with_parts("run", *words, *tiny, "run_dir=b")) == 0
    record = json.loads(Path("b/run.json").read_text())
    assert record["zero_forgetting_verified"] is True
    assert re.fullmatch(r"classes_0_1,classes_2_3", Path("b/accuracy_matrix.csv").read_text().splitlines()[0])


def test_a_sequence_and_data_that_do_not_fit(my_parts: Path, command: Command, one_line: OneLine) -> None:
    assert command(*with_parts("run", "benchmark=omniglot", "data=bars", "run_dir=run")) == 2
    assert "this benchmark needs data=omniglot, not bars" in one_line()
    assert command(*with_parts("run", "benchmark=shifted", "data=omniglot", "model=wide", "run_dir=run")) == 2
    assert "data=omniglot is for benchmark=omniglot" in one_line()


def test_the_data_command_knows_the_data_set(my_parts: Path, command: Command, capsys: Capture) -> None:
    assert command(*with_parts("data", "status", "bars")) == 0
    assert capsys.readouterr().out == "bars: present: it is drawn when it is read\n"
    assert command(*with_parts("data", "verify", "bars")) == 0
    assert "300 training and 100 test images" in capsys.readouterr().out


def test_each_option_of_a_data_set_is_read_anew(my_parts: Path) -> None:
    """Data is read once a process, but not once for all options."""
    from cl_powerprop import load_task

    registry.import_modules(["my_parts"])
    words = ("data=bars", "benchmark=shifted", "model=wide", "strategy=naive")
    quiet, loud = (load_task([*words, f"data.noise={noise}"], 0)[0] for noise in (1, 200))
    assert float(quiet.max()) < float(loud.max())


def test_the_python_api_names_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown strategy 'anchored'.*--import"):
        compose([*OURS, "strategy=anchored"])
