"""A run that is stopped at any moment goes on from there, and ends with the same numbers, to the bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop import interrupts
from cl_powerprop.experiment import run
from cl_powerprop.results.results import Results
from cl_powerprop.training.checkpoints import Checkpoints, Reach

from .conftest import compose_config
from .test_resume import assert_same

pytestmark = pytest.mark.slow

TINY = (
    *("data=digits", "benchmark.n_tasks=2", "train.epochs=2", "model.hidden=[12]", "train.batch_size=500"),
    *("progress=false", "train.eval_batch_size=200", "checkpoint.every_epochs=null", "checkpoint.every_seconds=null"),
)
MASKED = ("strategy.retrain_epochs=1",)
ADAM = ("optimizer=adam", "optimizer.lr=0.01")
NORM = ("model=convnet", "model.width=2", "model.norm=batch", "train.batch_size=700")
SPARSE = ("strategy=naive", "sparsity.target=0.8", "optimizer.momentum=0.9", "sparsity.every=3")
RUNS = {
    "naive": ("strategy=naive", *ADAM, "train.shift=2", "train.warmup=0.1"),
    "steps": ("strategy=naive", "train.steps=9", "evaluation.every_steps=3"),
    "within": ("strategy=naive", "evaluation.every_epochs=1", "model.heads=shared"),
    "ewc": ("strategy=ewc", "strategy.mode=separate", "train.precision=bf16"),
    "packnet": ("strategy=packnet", *MASKED, *ADAM, "model.bias=per_task"),
    "packnet-inference": ("strategy=packnet", *MASKED, "strategy.task_inference=entropy", "benchmark.scenario=domain"),
    "epn": ("strategy=epn", *MASKED, *ADAM, "strategy.criterion=saliency", "model.bias=frozen"),
    "epn-at-once": ("strategy=epn", "strategy.retrain_epochs=0", "strategy.criterion=both", "model.bias=per_task"),
    "epn-steps": ("strategy=epn", "strategy.retrain_epochs=0", "train.steps=7", "model.bias=frozen"),
    "epn-norm": ("strategy=epn", *MASKED, *NORM, "model.bias=per_task", "train.shift=1"),
    "joint": ("strategy=joint", "model.heads=per_task", "train.rotate=10"),
    "independent": ("strategy=independent", "train.clip_norm=1"),
    "untrained": ("strategy=untrained",),
    "rigl": (*SPARSE, "sparsity=rigl", "model.alpha=2"),
    "top_kast": (*SPARSE, "sparsity=top_kast"),
    "gradual": (*SPARSE, "sparsity=gradual", "benchmark.n_tasks=1", "sparsity.curve=[0.5,0.1]"),
}


def config_of(name: str) -> Any:
    words = RUNS[name]
    small = [word for word in TINY if not (word.startswith("model.hidden") and "model=convnet" in words)]
    return compose_config(*small, *words)


def state_of(checkpoints: Checkpoints) -> str:
    """What tells a moment from others at which a run has been stopped."""
    task = {} if checkpoints._task is None else checkpoints._task.state_dict()
    words = ("epochs", "iterations", "batches", "progress/EPNPlugin/hits", "progress/ContinualEvaluation/evaluated")
    return f"{[task.get(word) for word in words]} {checkpoints.measured()}"


@contextmanager
def stopped(at: set[str]) -> Iterator[None]:
    """Let a signal arrive at the first moment that is not in ``at``, and enter it there; write no other checkpoint."""
    whole = Checkpoints.moment

    def told(checkpoints: Checkpoints, needed: Reach = Reach.ANYWHERE) -> None:
        state = f"{results[0].trained_experiences} {results[0].tested_experiences} {state_of(checkpoints)}"
        if state in at:
            return
        at.add(state)
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


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_stopped_at_each_of_its_moments(name: str, tmp_path: Path) -> None:
    """It is stopped at a moment, goes on, is stopped at the next one, and so on: each stop is another process's end."""
    whole = run(config_of(name), tmp_path / "whole").path
    at = set[str]()
    for _ in range(1000):
        with stopped(at):
            try:
                run(config_of(name), tmp_path / "run")
                break
            except interrupts.Interrupted:
                pass
    assert_same(tmp_path / "run", whole)
    print(name, len(at))
