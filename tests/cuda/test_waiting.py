"""A training step never waits for the GPU: torch raises an error where a tensor's value is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_powerprop.training.graphs import GraphedSteps, Replay
from cl_powerprop.training.steps import Steps

from .runs import RUNS, train

SETTLED = 8  # steps after which all that is made once is there


@contextmanager
def never_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Refuse to wait in all but the first steps of every epoch; yields how many steps each epoch had."""
    epochs: list[int] = []

    def watched(batches: Any) -> Any:
        def watch(steps: Steps) -> Iterator[Any]:
            count = 0
            try:
                for batch in batches(steps):
                    if count == SETTLED:
                        torch.cuda.set_sync_debug_mode("error")
                    yield batch
                    count += 1
            finally:
                torch.cuda.set_sync_debug_mode("default")
            epochs.append(count)

        return watch

    record = Replay._record

    def unwatched(replay: Replay, *arguments: Any) -> Any:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return record(replay, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    with monkeypatch.context() as patch:
        patch.setattr(Replay, "_record", unwatched)
        patch.setattr(GraphedSteps, "batches", watched(GraphedSteps.batches))
        patch.setattr(Steps, "batches", watched(Steps.batches))
        try:
            yield epochs
        finally:  # also after an error, whose traceback keeps the generator above alive
            torch.cuda.set_sync_debug_mode("default")


def test_what_waits_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Control: a step that reads its loss is found."""
    make = Steps.make

    def reading(steps: Steps) -> None:
        make(steps)
        steps.learner.loss.item()

    monkeypatch.setattr(Steps, "make", reading)
    with never_waiting(monkeypatch), pytest.raises(RuntimeError, match="synchroniz"):
        train(tmp_path / "run", "naive", "train.cuda_graphs=false")


@pytest.mark.parametrize("graphs", ["false", "auto"])
@pytest.mark.parametrize("name", RUNS)
def test_no_step_waits(name: str, graphs: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with never_waiting(monkeypatch) as epochs:
        # Checkpoints, and the steps after which RigL changes its masks, may wait.
        rare = ["sparsity.every=1000"] if "rigl" in name else []
        train(
            tmp_path / "run",
            name,
            f"train.cuda_graphs={graphs}",
            "train.batch_size=20",
            "checkpoint.max_share=1",
            *rare,
        )
    assert max(epochs) > SETTLED + 4
