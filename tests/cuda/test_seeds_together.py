"""Seeds that train together on a GPU: recorded as CUDA graphs, without waiting, and each as it is alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import Tensor

from cl_powerprop.seeds_together import run_together
from cl_powerprop.training.graphs import Replay
from cl_powerprop.training.stacked import Together

from ..run.conftest import compose_config
from ..run.test_resume import assert_same_numbers
from ..run.test_whole_runs import read_matrix
from .runs import train, words_of

STACKED = ("naive", "naive, clipped", "naive, bf16", "packnet", "packnet, adamw", "epn", "epn, bf16", "epn, batch norm")
SEEDS = 3
SETTLED = 8  # steps after which all that is made once is there


def together(folder: Path, name: str, *more: str) -> list[Path]:
    """Return the run folders of three seeds."""
    config = compose_config(*words_of(name, f"seeds_together={SEEDS}", *more))
    return [result.path for result in run_together(config, folder, quiet=True)]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of seeds in each step that was made together."""
    found: list[int] = []
    make = Together._step

    def counted(self: Together, places: Tensor) -> None:
        found.append(len(places))
        make(self, places)

    monkeypatch.setattr(Together, "_step", counted)
    return found


@pytest.mark.parametrize("name", STACKED)
def test_recorded_steps_give_the_same_bits(
    name: str, tmp_path: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = together(tmp_path / "without", name, "train.cuda_graphs=false")
    count = len(steps)
    assert count
    assert set(steps) == {SEEDS}
    recorded: list[Replay] = []
    record = Replay._record

    def noted(self: Replay, *arguments: Any) -> Any:
        recorded.append(self)
        return record(self, *arguments)

    monkeypatch.setattr(Replay, "_record", noted)
    with_graphs = together(tmp_path / "with", name, "train.cuda_graphs=auto")
    assert len(steps) == 2 * count
    assert recorded
    for one, other in zip(without, with_graphs, strict=True):
        assert_same_numbers(one, other)


@pytest.mark.parametrize("name", ["naive, clipped", "packnet", "packnet, adamw"])
def test_each_seed_is_what_it_is_alone(name: str, tmp_path: Path, steps: list[int]) -> None:
    words = ("benchmark.n_tasks=1", "train.epochs=2")
    folders = together(tmp_path / "together", name, *words)
    assert steps
    for seed, folder in enumerate(folders):
        alone = train(tmp_path / f"alone_{seed}", name, *words, f"seed={seed}").path
        one, other = (safetensors.torch.load_file(each / "model.safetensors") for each in (alone, folder))
        assert one.keys() == other.keys()
        for key, value in one.items():
            torch.testing.assert_close(other[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["epn", "ewc", "joint", "independent"])
def test_whole_runs_learn_what_they_learn_alone(name: str, tmp_path: Path) -> None:
    """Whether all of their steps are made together or not."""
    for seed, folder in enumerate(together(tmp_path / "together", name)):
        alone = train(tmp_path / f"alone_{seed}", name, f"seed={seed}").path
        one, other = (pd.read_csv(each / "curves.csv") for each in (alone, folder))
        losses = [rows.query("split == 'train' and metric == 'loss'").value.to_numpy()[:2] for rows in (one, other)]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)  # later, rounding grows
        np.testing.assert_allclose(read_matrix(alone), read_matrix(folder), atol=0.06)


@pytest.mark.parametrize("name", ["packnet", "epn", "epn, batch norm"])
def test_no_earlier_task_is_forgotten(name: str, tmp_path: Path, steps: list[int]) -> None:
    config = compose_config(*words_of(name, f"seeds_together={SEEDS}"))
    assert [run.record["zero_forgetting_verified"] for run in run_together(config, tmp_path / "run", quiet=True)] == [
        True
    ] * SEEDS
    assert steps


@pytest.mark.parametrize("graphs", ["false", "auto"])
@pytest.mark.parametrize("name", ["naive", "packnet, adamw", "epn", "epn, batch norm"])
def test_no_step_waits(name: str, graphs: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But for the first steps of an epoch, and the recording."""
    make, train_epoch, record = Together._step, Together.train_epoch, Replay._record
    counts: list[int] = []

    def epoch(self: Together, *arguments: Any) -> Any:
        counts.append(0)
        return train_epoch(self, *arguments)

    def watched(self: Together, places: Tensor) -> None:
        counts[-1] += 1
        torch.cuda.set_sync_debug_mode("error" if counts[-1] > SETTLED else "default")
        try:
            make(self, places)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def unwatched(self: Replay, *arguments: Any) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        return record(self, *arguments)

    monkeypatch.setattr(Together, "train_epoch", epoch)
    monkeypatch.setattr(Together, "_step", watched)
    monkeypatch.setattr(Replay, "_record", unwatched)
    together(tmp_path / "run", name, f"train.cuda_graphs={graphs}", "train.batch_size=20")
    assert max(counts) > SETTLED + 4
