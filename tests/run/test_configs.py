"""Every config of the package: composed, parsed, run in miniature, and listed."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cl_powerprop.catalogue import catalogue
from cl_powerprop.registry import CONF, canonical, metrics

from .conftest import Command, compose_config

pytestmark = pytest.mark.slow

GROUPS = ("benchmark", "data", "model", "strategy", "optimizer")
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = sorted(
    path.relative_to(CONF / "experiment").with_suffix("").as_posix()
    for path in (CONF / "experiment").rglob("*.yaml")
    if not path.name.startswith("_")
)
PRUNING = [name for name in EXPERIMENTS if "pruning" in name]


def test_there_is_something_to_look_at() -> None:
    assert {group for group, _ in CHOICES} == set(GROUPS)
    assert "mnist_pruning" in PRUNING
    assert len(EXPERIMENTS) > len(PRUNING)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_parses(group: str, name: str) -> None:
    fitting = ["benchmark=omniglot"] if (group, name) == ("data", "omniglot") else []
    config = compose_config(*fitting, f"{group}={name}")
    assert getattr(config, group).name == canonical(group, name)
    config.check()


@pytest.mark.parametrize("words", [(), ("logger=[wandb]",), ("logger=tensorboard",), ("logger=[wandb,tensorboard]",)])
def test_every_choice_of_loggers_composes_and_parses(words: tuple[str, ...]) -> None:
    config = compose_config(*words)
    assert set(config.logger) == {name for name in ("wandb", "tensorboard") if words and name in words[0]}
    config.check()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_parses(name: str) -> None:
    config = compose_config(f"experiment={name}")
    config.check()
    assert (config.pruning is not None) == (name in PRUNING)


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


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in (*PRUNING, *IMAGENET)])
def test_every_experiment_runs_in_miniature(name: str, tmp_path: Path, omniglot_root: Path) -> None:
    from cl_powerprop.experiment import run

    data = f"data.root={omniglot_root}" if name.startswith("omniglot") else "data=mnist5k"
    overrides = [f"experiment={name}", data, "benchmark.n_tasks=2", "train.epochs=2", "train.batch_size=200"]
    if hasattr(compose_config(*overrides).strategy, "retrain_epochs"):
        overrides.append("strategy.retrain_epochs=1")
    if hasattr(compose_config(*overrides).strategy, "penalty"):
        overrides.append("strategy.penalty=1")  # after so few steps importances are large, and the recipe's diverges
    config = compose_config(*overrides, "progress=false")
    record = run(config, tmp_path / "run").record
    assert record["status"] == "complete"
    assert record["data"] == ("omniglot" if name.startswith("omniglot") else "mnist5k")
    assert record["trained_tasks"] == 2
    assert record["zero_forgetting_verified"] == (config.strategy.name not in ("naive", "ewc"))


SMALL_PRUNING = (
    "data=mnist5k",
    "pruning.steps=20",
    "pruning.alphas=[1,2.5]",
    "pruning.lrs=[0.1,0.2]",
    "pruning.seeds=[3]",
    "pruning.hidden=[30,20]",
    "pruning.densities=[1.0,0.5,0.01]",
    "progress=false",
)


@pytest.mark.parametrize("name", PRUNING)
def test_the_pruning_experiment_in_miniature(
    name: str, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pruning"
    assert command("run", f"experiment={name}", *SMALL_PRUNING, f"run_dir={folder}") == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert str(folder) in printed.replace("\n", "")
    files = {"run.json", "pruning.csv", "pruning_summary.csv", "pruning.png", "pruning.svg"}
    assert {path.name for path in folder.iterdir()} >= files
    assert not list(folder.glob("*.part"))
    table = pd.read_csv(folder / "pruning.csv")
    assert list(table) == ["alpha", "seed", "density", "accuracy"]
    assert [tuple(row) for row in table[["alpha", "seed", "density"]].to_numpy()] == [
        (alpha, 3, density) for alpha in (1.0, 2.5) for density in (1.0, 0.5, 0.01)
    ]
    assert table.accuracy.between(0, 1).all()
    assert (table[table.density == 1.0].accuracy > 0.2).all(), "twenty steps learn something"
    summary = pd.read_csv(folder / "pruning_summary.csv")
    merged = summary.merge(table, on=["alpha", "density"])
    assert (merged["mean"] == merged["accuracy"]).all()
    assert (summary["count"] == 1).all()
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "complete"
    assert record["settings"]["seeds"] == [3]
    assert (folder / "pruning.png").read_bytes().startswith(b"\x89PNG")


def test_the_pruning_experiment_is_deterministic(tmp_path: Path) -> None:
    from cl_powerprop.pruning import run_pruning

    config = compose_config("experiment=mnist_pruning", *SMALL_PRUNING)
    tables = [run_pruning(config, tmp_path / name) for name in ("one", "two")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    for name in ("pruning.csv", "pruning_summary.csv", "pruning.png", "pruning.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("pruning.alphas=[0.5,2]", "alpha"),
        ("pruning.lrs=[0.1]", "pruning.lrs needs one rate for each of the 2 alphas"),
        ("pruning.densities=[0.0]", "pruning.densities must be in (0, 1]"),
        ("pruning.densities=[1.5]", "pruning.densities must be in (0, 1]"),
        ("pruning.steps=0", "pruning.steps"),
        ("pruning.seeds=[]", "pruning.seeds"),
        ("pruning.alphas=[] pruning.lrs=[]", "pruning.alphas"),
        ("pruning.densities=[]", "pruning.densities"),
    ],
)
def test_impossible_pruning_is_one_line(
    override: str, part: str, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    code = command("run", "experiment=mnist_pruning", *SMALL_PRUNING, *override.split(), f"run_dir={tmp_path / 'run'}")
    errors = capsys.readouterr().err.splitlines()
    assert (code, len(errors)) == (2, 1), errors[-3:]
    assert errors[0].startswith("cl-powerprop: error:")
    assert part in errors[0]


def test_pruning_that_diverges_keeps_what_was_finished(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = ("run", "experiment=mnist_pruning", *SMALL_PRUNING, "pruning.lrs=[0.1,1e9]", f"run_dir={folder}")
    assert command(*words) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "diverged" in errors[0]
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    assert set(pd.read_csv(folder / "pruning.csv").alpha) == {1.0}


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
    expected["metric"] = set(metrics())
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
        "strategy: epn, ewc, independent, joint, naive, packnet, untrained",
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
    assert "benchmark, data, model, strategy, optimizer, logger, experiment, metric" in error
