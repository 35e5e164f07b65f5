"""What a job of a multirun returns to a sweeper that searches."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hydra.experimental.callback import Callback

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
