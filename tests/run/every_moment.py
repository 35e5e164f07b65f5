"""Runs that are stopped at moments at which they can go on, and compared with one that is not.

`CL_POWERPROP_MOMENTS=1` stops them at every moment; otherwise at every seventh one, which takes a seventh of the time.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop import interrupts
from cl_powerprop.config import RunConfig
from cl_powerprop.experiment import run
from cl_powerprop.results.results import Results
from cl_powerprop.training.checkpoints import Checkpoints, Reach

from .test_resume import assert_same

TINY = (
    *("benchmark.n_tasks=2", "train.epochs=2", "train.eval_batch_size=200", "progress=false"),
    *("checkpoint.every_epochs=null", "checkpoint.every_seconds=null"),
)
DIGITS = (*TINY, "data=digits", "model.hidden=[12]", "train.batch_size=500")
MASKED = ("strategy.retrain_epochs=1",)
EVERY = int(os.environ.get("CL_POWERPROP_MOMENTS", "7"))
ADAM = ("optimizer=adam", "optimizer.lr=0.01")


def check_every_moment(config: RunConfig, folder: Path, least: int) -> None:
    """Stop a run at a moment, let it go on, stop it at a later one, and so on, each time as another process's end.

    Args:
        config: of the run.
        folder: where the runs are written.
        least: moments that there must be, for otherwise this would say nothing.
    """
    at = set[str]()
    whole = run(copy.deepcopy(config), folder / "whole", quiet=True).path
    while True:
        with stopped(at):
            try:
                run(copy.deepcopy(config), folder / "run", quiet=True)
                break
            except interrupts.Interrupted:
                pass
    assert_same(folder / "run", whole)
    assert len(at) >= least, at


def state_of(checkpoints: Checkpoints) -> str:
    """What tells a moment from others at which a run has been stopped."""
    task = {} if checkpoints._task is None else checkpoints._task.state_dict()
    words = ("epochs", "iterations", "batches", "progress/EPNPlugin/hits", "progress/ContinualEvaluation/evaluated")
    return f"{[task.get(word) for word in words]} {checkpoints.measured()}"


@contextmanager
def stopped(at: set[str]) -> Iterator[None]:
    """Let a signal arrive after a few moments that are not in ``at``, and enter them; write no other checkpoint."""
    whole = Checkpoints.moment

    def told(checkpoints: Checkpoints, needed: Reach = Reach.ANYWHERE) -> None:
        state = f"{results[0].trained_experiences} {results[0].tested_experiences} {state_of(checkpoints)}"
        if state in at:
            return
        at.add(state)
        if len(at) % EVERY:
            return
        interrupts._state.requested = 15
        try:
            whole(checkpoints, needed)
        finally:
            interrupts._state.requested = None

    results: list[Results] = []
    recording = Results.recording

    def noted(self: Results, *args: Any) -> Any:
        results.append(self)
        return recording(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "moment", told)
        patch.setattr(Checkpoints, "_schedule", lambda checkpoints: setattr(checkpoints, "_due", 0.0))
        patch.setattr(Results, "recording", noted)
        yield
