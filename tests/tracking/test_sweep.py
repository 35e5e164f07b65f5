"""The package's W&B sweep, without a server: W&B's own code makes the agent's commands, and ours composes them."""

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from wandb.sdk.launch.sweeps import utils

from ..run.conftest import Command, compose_config

pytestmark = pytest.mark.slow

SWEEP = Path(__file__).parents[2] / "scripts" / "wandb_sweep.yaml"


def extremes(parameter: dict[str, Any]) -> list[Any]:
    if "value" in parameter:
        return [parameter["value"]]
    return list(parameter["values"]) if "values" in parameter else [parameter["min"], parameter["max"]]


@pytest.fixture(scope="module")
def sweep() -> dict[str, Any]:
    loaded = utils.load_sweep_config(str(SWEEP))
    assert loaded is not None
    return loaded


def agent_command(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """The command that W&B's agent would call."""
    arguments = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    command = []
    for word in utils.create_sweep_command(list(sweep["command"])):
        command += arguments[word[2:-1]] if word.startswith("${") else [word]
    return command


def test_every_command_of_the_sweep_is_a_run(sweep: dict[str, Any]) -> None:
    names = list(sweep["parameters"])
    combinations = list(itertools.product(*(extremes(sweep["parameters"][name]) for name in names)))
    assert len(combinations) >= 8
    for values in combinations:
        program, subcommand, *overrides = agent_command(sweep, dict(zip(names, values, strict=True)))
        assert (Path(sys.executable).parent / program).exists()
        assert subcommand == "run"
        OverridesParser.create().parse_overrides(overrides)
        config = compose_config(*overrides)
        config.check()
        assert set(config.logger) == {"wandb"}
        assert config.model.alpha == values[names.index("model.alpha")]


def test_it_is_chosen_on_validation_data(sweep: dict[str, Any]) -> None:
    assert sweep["metric"] == {"name": "validation_accuracy", "goal": "maximize"}
    assert yaml.safe_load(SWEEP.read_text())["project"] == "cl-powerprop"


def test_a_command_of_the_agent_runs(sweep: dict[str, Any], command: Command) -> None:
    middle = {name: extremes(parameter)[0] for name, parameter in sweep["parameters"].items()}
    words = agent_command(sweep, middle)[1:]
    small = ("data=mnist5k", "benchmark.n_tasks=2", "train.epochs=1", "train.batch_size=200", "run_dir=run")
    small += ("strategy.retrain_epochs=0",)
    assert command(*words, *small, "logger.wandb.mode=offline") == 0
