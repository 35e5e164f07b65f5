"""Steps that are recorded as CUDA graphs give the numbers of steps that are not, to the bit."""

from pathlib import Path

import pytest
import torch

from cl_powerprop.training.graphs import Replay

from ..run.test_resume import assert_same_numbers
from .runs import RUNS, train


class Counts:
    """What is recorded and replayed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts()
    record, replay = Replay._record, torch.cuda.CUDAGraph.replay

    def recorded(self: Replay, *arguments: object) -> torch.cuda.CUDAGraph:
        found.recorded += 1
        return record(self, *arguments)  # type: ignore[arg-type]

    def replayed(self: torch.cuda.CUDAGraph) -> None:
        found.replayed += 1
        replay(self)

    monkeypatch.setattr(Replay, "_record", recorded)
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", replayed)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_recorded_steps_give_the_same_bits(name: str, tmp_path: Path, counts: Counts) -> None:
    without = train(tmp_path / "without", name, "train.cuda_graphs=false").path
    assert (counts.recorded, counts.replayed) == (0, 0)
    recorded = train(tmp_path / "with", name, "train.cuda_graphs=auto").path
    assert counts.recorded > 0
    assert counts.replayed > 4 * counts.recorded, "masks change between replays, and the graph stays"
    assert_same_numbers(without, recorded)


def test_random_changes_of_images_stay_random(tmp_path: Path, counts: Counts) -> None:
    changes = ("train.shift=1", "train.rotate=10")
    without = train(tmp_path / "without", "naive", *changes, "train.cuda_graphs=false").path
    recorded = train(tmp_path / "with", "naive", *changes, "train.cuda_graphs=auto").path
    assert counts.replayed > 0
    assert_same_numbers(without, recorded)


def test_other_sizes_of_batches(tmp_path: Path, counts: Counts) -> None:
    """The last batch of an epoch is smaller, or one larger."""
    for size in (7, 64, 1000):
        folders = [
            train(tmp_path / f"{size}-{way}", "epn", f"train.batch_size={size}", f"train.cuda_graphs={way}").path
            for way in ("false", "auto")
        ]
        assert_same_numbers(*folders)
    assert counts.replayed > 0
