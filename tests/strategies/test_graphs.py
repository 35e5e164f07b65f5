"""Steps on fixed tensors, as CUDA graphs need them. On a CPU they are called in place of being replayed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cl_powerprop.composition import compose
from cl_powerprop.experiment import run
from cl_powerprop.training import graphs

SMALL = ["data=digits", "benchmark.n_tasks=3", "train.epochs=4", "train.batch_size=50", "progress=false", "device=cpu"]
RUNS = {
    "naive": ["strategy=naive"],
    "momentum": ["strategy=naive", "optimizer.momentum=0.9", "optimizer.nesterov=true", "train.schedule=cosine"],
    "packnet": ["strategy=packnet", "strategy.retrain_epochs=1"],
    "packnet, heads": ["strategy=packnet", "model.heads=per_task", "model.bias=per_task"],
    "epn": ["strategy=epn", "strategy.retrain_epochs=1", "model.alpha=2"],
    "epn, saliency": ["strategy=epn", "strategy.criterion=saliency"],
    "epn, free": ["strategy=epn", "strategy.train_through=free", "optimizer=adam", "optimizer.lr=0.01"],
    "epn, within": ["strategy=epn", "evaluation.every_steps=3", "model.alpha=1.5"],
    "ewc": ["strategy=ewc", "model.heads=shared"],
    "ewc, separate": ["strategy=ewc", "strategy.mode=separate"],
    "joint": ["strategy=joint", "model.heads=shared", "model.alpha=1"],
    "joint, heads": ["strategy=joint", "model.heads=per_task"],
    "independent": ["strategy=independent"],
    "augmented": ["strategy=packnet", "train.shift=1", "train.label_smoothing=0.1"],
    "rigl": ["strategy=naive", "sparsity=rigl", "sparsity.every=5", "sparsity.target=0.5", "optimizer.momentum=0.9"],
    "gradual": ["strategy=naive", "sparsity=gradual", "sparsity.every=5", "optimizer=adam", "optimizer.lr=0.01"],
    "top_kast": ["strategy=naive", "sparsity=top_kast", "sparsity.every=5"],
    "convnet": [
        "strategy=epn",
        "model=convnet",
        "model.width=4",
        "data=mnist5k",
        "benchmark.n_tasks=2",
        "train.epochs=2",
    ],
}


class Keys:
    """Counts the recordings that a GPU would make."""

    def __init__(self) -> None:
        self.recorded = 0

    def note(self, replay: graphs.Replay, key: object = None) -> None:
        if key != replay._key:
            self.recorded += 1
        replay._key = key
        replay.step()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Let steps go through what is recorded on a GPU."""
    found, make = Keys(), graphs.Graphs.__init__

    def on(self: Any, learner: Any, wanted: str) -> None:
        make(self, learner, "auto")
        self.is_on = True

    monkeypatch.setattr(graphs.Graphs, "__init__", on)
    monkeypatch.setattr(graphs.Replay, "__call__", lambda replay, key=None: found.note(replay, key))
    return found


@pytest.mark.parametrize("name", RUNS)
def test_steps_on_fixed_tensors_give_the_same_numbers(name: str, tmp_path: Path, request: Any) -> None:
    config = compose([*SMALL, *RUNS[name]])
    run(config, tmp_path / "plain", quiet=True)
    request.getfixturevalue("keys")
    run(config, tmp_path / "fixed", quiet=True)
    for file in ("accuracy_matrix.csv", "capacity.csv"):
        if (tmp_path / "plain" / file).exists():
            assert (tmp_path / "fixed" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    plain, fixed = (load_file(tmp_path / each / "model.safetensors") for each in ("plain", "fixed"))
    assert all(torch.equal(fixed[key], plain[key]) for key in plain)
