"""Every config of the package: composed, parsed, run in miniature, and listed."""

from pathlib import Path
from typing import Any

import pytest

from cl_powerprop.catalogue import catalogue
from cl_powerprop.registry import CONF, canonical, metrics
from cl_powerprop.suites.definition import suite_names

from .conftest import Command, compose_config, shipped

pytestmark = pytest.mark.slow

GROUPS = ("benchmark", "data", "model", "strategy", "sparsity", "optimizer")
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("[!_]*.yaml"))]
EXPERIMENTS = sorted(
    path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    for path in (CONF / "experiment").rglob("*.yaml")
    if not path.name.startswith("_")
)


def test_there_is_something_to_look_at() -> None:
    assert {group for group, _ in CHOICES} == set(GROUPS)
    assert {"mnist_pruning", "quickstart/epn"} <= set(EXPERIMENTS)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_parses(group: str, name: str) -> None:
    needed = {"data": ["benchmark=omniglot"] if name == "omniglot" else [], "sparsity": ["benchmark=single"]}
    config = compose_config(*needed.get(group, []), f"{group}={name}")
    assert getattr(config, group).name == canonical(group, name)
    config.check()


@pytest.mark.parametrize("words", [(), ("logger=[wandb]",), ("logger=tensorboard",), ("logger=[wandb,tensorboard]",)])
def test_every_choice_of_loggers_composes_and_parses(words: tuple[str, ...]) -> None:
    config = compose_config(*words)
    assert set(config.logger) == {name for name in ("wandb", "tensorboard") if words and name in words[0]}
    config.check()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_parses(name: str) -> None:
    compose_config(f"experiment={name}").check()


def test_recipes_whose_numbers_are_recorded_search_as_they_did_then() -> None:
    recorded = {"omniglot", "permuted_mnist_10", "rotated_mnist_10", "split_mnist"}
    searches = {
        name: config.strategy.search
        for name in EXPERIMENTS
        if name.split("/")[0] in recorded and (config := compose_config(f"experiment={name}")).strategy.name == "epn"
    }
    assert set(searches.values()) == {"grid"}, searches
    assert {name.split("/")[0] for name in searches} == recorded
    assert compose_config("strategy=epn").strategy.search == "gallop"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_its_own_command(name: str) -> None:
    """The second comment line of a recipe is the command that runs it."""
    lines = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    commands = [line for line in lines if line.startswith("# cl-powerprop run")]
    assert any(f"experiment={name}" in line for line in commands)


# One task of pictures: in test_imagenet.py.
IMAGENET = [name for name in EXPERIMENTS if name.startswith("imagenet/")]


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in IMAGENET])
def test_every_experiment_runs_in_miniature(
    name: str, tmp_path: Path, omniglot_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_powerprop.experiment import run
    from cl_powerprop.sequences import omniglot

    monkeypatch.setattr(omniglot, "CHARACTERS_A_TASK", 3)  # there are six
    data = f"data.root={omniglot_root}" if name.startswith("omniglot") else "data=mnist5k"
    tasks = 1 if compose_config(f"experiment={name}").benchmark.name == "single" else 2
    overrides = [f"experiment={name}", data, f"benchmark.n_tasks={tasks}", "train.epochs=2", "train.batch_size=200"]
    if compose_config(*overrides).train.steps is not None:
        overrides.append("train.steps=20")
    if hasattr(compose_config(*overrides).model, "channels"):
        overrides += ["model.channels=[4,6]", "model.hidden=[16,12]"]
    if hasattr(compose_config(*overrides).strategy, "retrain_epochs"):
        overrides.append("strategy.retrain_epochs=1")
    if hasattr(compose_config(*overrides).strategy, "penalty"):
        overrides.append("strategy.penalty=1")  # after so few steps importances are large, and the recipe's diverges
    config = compose_config(*overrides, "progress=false")
    record = run(config, tmp_path / "run").record
    assert record["status"] == "complete"
    assert record["data"] == ("omniglot" if name.startswith("omniglot") else "mnist5k")
    assert record["trained_tasks"] == tasks
    keeps = config.strategy.name not in ("naive", "ewc")
    assert record["zero_forgetting_verified"] == (keeps if tasks > 1 else None)


def test_list_names_every_choice_with_a_line(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    printed = capsys.readouterr().out
    listed: dict[str, dict[str, str]] = {}
    group = ""
    for line in printed.splitlines():
        if line.startswith("  "):
            name, description = line.split(maxsplit=1)
            listed[group][name] = description
        else:
            group = line.removesuffix(":")
            listed[group] = {}
    expected: dict[str, set[str]] = {group: set() for group in GROUPS}
    for group, name in CHOICES:
        expected[group].add(canonical(group, name))
    expected["experiment"] = set(EXPERIMENTS)
    expected["logger"] = {"wandb", "tensorboard"}
    expected |= {"suite": set(suite_names()), "metric": set(metrics())}
    assert {group: set(names) for group, names in listed.items()} == expected
    assert listed == catalogue()
    for names in listed.values():
        for description in names.values():
            assert len(description) > 3
            assert not description.startswith("@")


def test_cfg_job_prints_the_config_and_runs_nothing(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    from omegaconf import OmegaConf

    assert command("run", "--cfg", "job", "strategy=packnet", "seed=7") == 0
    config: Any = OmegaConf.create(capsys.readouterr().out)
    assert (config.strategy.name, config.seed) == ("packnet", 7)
    assert not (tmp_path / "runs").exists()


def test_run_help_shows_groups_and_config(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", "--help") == 0
    printed = capsys.readouterr().out
    for part in (
        "cl-powerprop run [OVERRIDES] [-m]",
        "strategy: " + ", ".join(shipped("strategy")),
        "sparsity: gradual, iterative, none, one_shot, rigl, set, static, top_kast",
        "gamma: 0.98",
        "--cfg job",
    ):
        assert part in printed


def test_run_help_has_the_comments_of_the_files(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", "--help", "strategy=packnet", "logger=[wandb]", "model=convnet", "train.epochs=3") == 0
    printed = capsys.readouterr().out
    for line in (
        "  retrain_lr: 0.5  # factor of optimizer.lr in retraining",
        "  epochs: 3  # per task, including retraining",
        "  width: 64  # channels of each block",
        "    log_model: false  # upload the network with its masks as an artifact",
        "run_dir: runs/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}  # a run never overwrites another",
    ):
        assert line in printed.splitlines()
    assert "gamma" not in printed, "the options of the strategy that was chosen"
    assert command("run", "--help", "--resolve", "logger=[wandb]") == 0
    assert "    dir: runs  # W&B's own files" in capsys.readouterr().out


def test_list_of_one_group(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list", "optimizer") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["optimizer:", "adam", "adamw", "sgd"]
    assert command("list", "strategies") == 2
    error = capsys.readouterr().err
    assert "no group 'strategies'" in error
    assert "benchmark, data, model, strategy, sparsity, optimizer, logger, experiment, suite, metric" in error
