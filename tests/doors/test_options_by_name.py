"""Options that are given by a part's name: a sweep over several strategies can give one of them what only it has."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_powerprop import compose

from .conftest import OURS, Command, Module, OneLine, a_strategy

pytestmark = pytest.mark.slow


def config_of(folder: str) -> Any:
    return yaml.safe_load(Path(folder, "config.yaml").read_text())


def test_a_sweep_gives_one_strategy_what_only_it_has(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*OURS, "strategy=naive,epn,packnet", "epn.gamma=0.95", "packnet.retrain_lr=0.25")
    assert command("run", "-m", *words, "hydra/launcher=basic", "run_dir=sweep") == 0
    assert capsys.readouterr().err == ""
    naive, epn, packnet = (config_of(f"sweep/{job}") for job in range(3))
    assert naive["strategy"] == {"name": "naive"}
    assert epn["strategy"]["name"] == "epn"
    assert (epn["strategy"]["gamma"], epn["strategy"]["retrain_lr"]) == (0.95, 0.5)
    assert packnet["strategy"]["name"] == "packnet"
    assert packnet["strategy"]["retrain_lr"] == 0.25
    for config in (naive, epn, packnet):
        assert not {"epn", "packnet", "naive"} & set(config), "options stand under strategy alone"
    assert [config["strategy"].get("retrain_epochs") for config in (naive, epn, packnet)] == [None, 1, 1]


def test_an_option_by_name_is_swept_over(command: Command) -> None:
    words = (*OURS, "strategy=epn", "epn.gamma=0.9,0.8", "hydra/launcher=basic", "run_dir=sweep")
    assert command("run", "-m", *words) == 0
    assert [config_of(f"sweep/{job}")["strategy"]["gamma"] for job in (0, 1)] == [0.9, 0.8]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("epn.gama=0.95", "unknown option 'epn.gama'; did you mean 'gamma'? choose from: "),
        ("epn.shares=0.5", "unknown option 'epn.shares'; "),
        ("epn.gamma=high", "epn.gamma: Value 'high' of type 'str' could not be converted to Float"),
        ("epn.sparsities=[0.5,x]", "Value 'x' of type 'str' could not be converted to Float"),
        ("epn.gamma.x=1", "epn.gamma: "),
        ("naive.gamma=1", "unknown option 'naive.gamma'; "),
        ("resnet18.wdith=2", "unknown option 'resnet18.wdith'; did you mean 'width'?"),
        ("adam.momentum=2", "unknown option 'adam.momentum'; "),
        ("epm.gamma=0.95", "unknown option 'epm'"),
        ("digits.root=x", "unknown option 'digits'"),  # data has no options of its own, and is not swept over so
    ],
)
def test_a_mistake_is_one_line_though_another_is_chosen(
    word: str, said: str, command: Command, one_line: OneLine
) -> None:
    chosen = "packnet" if word.startswith("naive") else "naive"
    assert command("run", *OURS, f"strategy={chosen}", word, "run_dir=run") == 2
    assert said in one_line()
    assert not Path("run").exists() or not list(Path("run").iterdir())


def test_the_mistake_of_a_sweep_is_one_line(command: Command, one_line: OneLine) -> None:
    words = (*OURS, "strategy=naive,epn", "seed=0,1", "epn.gama=0.95", "hydra/launcher=basic", "run_dir=sweep")
    assert command("run", "-m", *words) == 2
    assert "unknown option 'epn.gama'; did you mean 'gamma'?" in one_line()


def test_models_and_optimizers_too() -> None:
    config = compose([*OURS, "mlp.hidden=[12]", "resnet18.width=4", "sgd.momentum=0.5", "adamw.lr=1"])
    assert (vars(config.model)["hidden"], vars(config.optimizer)["momentum"]) == ([12], 0.5)
    assert config.optimizer.lr != 1
    assert vars(compose(["model=resnet18", "resnet18.width=4"]).model)["width"] == 4


def test_the_last_word_counts_and_every_way_of_writing_it() -> None:
    def gamma(*words: str) -> float:
        return float(vars(compose(["strategy=epn", *words]).strategy)["gamma"])

    assert gamma("epn.gamma=0.9", "epn.gamma=0.8") == 0.8
    assert gamma("+epn.gamma=0.9") == gamma("++epn.gamma=0.9") == 0.9
    assert gamma("strategy.gamma=0.9") == 0.9
    assert gamma() == 0.98
    assert gamma("packnet.retrain_lr=1") == 0.98


@pytest.mark.parametrize(("epochs", "half"), [(1, 0), (2, 1), (5, 2), (10, 5)])
def test_retraining_is_half_of_a_task_unless_it_is_said(epochs: int, half: int) -> None:
    for strategy in ("epn", "packnet"):
        words = [f"strategy={strategy}", f"train.epochs={epochs}"]
        assert vars(compose(words).strategy)["retrain_epochs"] == half
        assert vars(compose([*words, "strategy.retrain_epochs=null"]).strategy)["retrain_epochs"] == half
        assert vars(compose([*words, f"{strategy}.retrain_epochs=0"]).strategy)["retrain_epochs"] == 0


def test_retraining_is_recorded_as_a_number(command: Command) -> None:
    words = [word for word in OURS if not word.startswith("train.epochs")]
    assert command("run", *words, "strategy=packnet", "train.epochs=3", "run_dir=run") == 0
    assert config_of("run")["strategy"]["retrain_epochs"] == 1
    assert command("repeat", "run", "run_dir=again", "train.epochs=4") == 0
    assert config_of("again")["strategy"]["retrain_epochs"] == 1, "what was recorded is repeated"


def test_a_strategy_of_theirs_that_is_called_as_an_option(module: Module) -> None:
    """No word is taken for another: a part may be called as some option within a group is."""
    module("mine", a_strategy("gamma"))
    from cl_powerprop.registry import import_modules

    import_modules(["mine"])
    config = compose(["strategy=gamma", "gamma.strength=2"])
    assert vars(config.strategy) == {"name": "gamma", "strength": 2.0}
    assert vars(compose(["strategy=epn", "strategy.gamma=0.9"]).strategy)["gamma"] == 0.9


def test_the_options_of_a_part_as_a_whole() -> None:
    assert vars(compose(["strategy=epn", "+epn={gamma: 0.9}"]).strategy)["gamma"] == 0.9


def test_the_name_of_a_part_is_no_option_itself(command: Command, one_line: OneLine) -> None:
    assert command("run", *OURS, "strategy=naive", "+epn=0.9", "run_dir=run") == 2
    assert "epn" in one_line()
