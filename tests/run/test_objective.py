"""What a job of a multirun returns to a sweeper that searches."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper

from .conftest import Command
from .test_multirun import quick

pytestmark = pytest.mark.slow


class Returned(Callback):
    """Keeps what each job has returned, as a sweeper gets it."""

    values: ClassVar[list[Any]] = []

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        self.values.append(job_return.return_value)


def test_a_job_returns_its_validation_accuracy(tmp_path: Path, command: Command) -> None:
    Returned.values.clear()
    callback = f"+hydra.callbacks.returned._target_={__name__}.Returned"
    words = ("hydra/launcher=basic", callback, "optimizer.lr=0.1,1e6", f"run_dir={tmp_path / 'sweep'}")
    assert command("run", "-m", *quick(), *words) == 1
    record = json.loads((tmp_path / "sweep" / "0" / "run.json").read_text())
    assert Returned.values == [record["metrics"]["validation_accuracy"], None]


class Climber(Sweeper):
    """A sweeper that searches: the second batch depends on what the first one has reached."""

    found: ClassVar[dict[float, float]] = {}

    def __init__(self, **_: Any) -> None:
        pass

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        for first, rates in ((0, [0.01, 0.3]), (2, [])):
            tried = rates or [rate * max(self.found, key=self.found.__getitem__) for rate in (0.5, 2.0)]
            batch = [[*arguments, f"optimizer.lr={rate}"] for rate in tried]
            returned = [each.return_value for each in self.launcher.launch(batch, initial_job_idx=first)]
            self.found |= dict(zip(tried, returned, strict=True))


def test_a_sweeper_of_hydra_searches(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "hydra_plugins.of_a_test.Climber"
    monkeypatch.setitem(Plugins.instance().class_name_to_class, name, Climber)
    Climber.found.clear()
    words = (f"hydra.sweeper._target_={name}", "evaluation.schedule=never", f"run_dir={tmp_path / 'sweep'}")
    assert command("run", "-m", *quick(), *words) == 0
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "sweep").glob("*/run.json"))]
    assert [*Climber.found] == [0.01, 0.3, 0.15, 0.6]
    assert [*Climber.found.values()] == [record["metrics"]["validation_accuracy"] for record in records]
    assert all(record["metrics"]["average_accuracy"] is None for record in records)


def test_a_run_of_an_earlier_version_has_reached_nothing_known() -> None:
    from cl_powerprop.launching.objective import validation_accuracy

    one, other = ({"metrics": {"validation_accuracy": value}} for value in (0.5, 1.0))
    assert validation_accuracy([one, other]) == 0.75
    for record in ({}, {"metrics": None}, {"metrics": {}}, {"metrics": {"validation_accuracy": None}}):
        assert validation_accuracy([one, record]) is None
