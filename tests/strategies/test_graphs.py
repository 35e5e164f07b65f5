"""Steps on fixed tensors, as CUDA graphs need them. On a CPU they are called in place of being replayed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from safetensors.torch import load_file

from cl_powerprop.assemble import assemble
from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.experiment import run
from cl_powerprop.training import graphs
from cl_powerprop.training.clipping import GradientClipping
from cl_powerprop.training.rates import hold_rates, set_rates
from cl_powerprop.training.steps import Steps

SMALL = ["data=digits", "benchmark.n_tasks=3", "train.epochs=4", "train.batch_size=50", "progress=false", "device=cpu"]
RUNS = {
    "naive": ["strategy=naive"],
    "momentum": ["strategy=naive", "optimizer.momentum=0.9", "optimizer.nesterov=true", "train.schedule=cosine"],
    "packnet": ["strategy=packnet", "strategy.retrain_epochs=1"],
    "packnet, heads": ["strategy=packnet", "model.heads=per_task", "model.bias=per_task"],
    "epn": ["strategy=epn", "strategy.retrain_epochs=1", "model.alpha=2"],
    "epn, saliency": ["strategy=epn", "strategy.criterion=saliency"],
    "epn, free": ["strategy=epn", "strategy.train_through=free", "optimizer=adam", "optimizer.lr=0.01"],
    "epn, scored": [
        "strategy=epn",
        "strategy.train_through=scored",
        "strategy.score_lr=1000",
        "optimizer.momentum=0.9",
    ],
    "epn, within": ["strategy=epn", "evaluation.every_steps=3", "model.alpha=1.5"],
    "hat": ["strategy=hat", "strategy.retrain_epochs=1", "optimizer.momentum=0.9", "model.alpha=1"],
    "wsn": ["strategy=wsn", "strategy.retrain_epochs=1", "optimizer.momentum=0.9", "model.bias=per_task"],
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


MOST_RECORDINGS = {"naive": 3, "packnet": 3, "epn": 3, "epn, free": 6, "ewc": 3, "independent": 3, "rigl": 6}


@pytest.mark.parametrize("name", MOST_RECORDINGS)
def test_masks_change_without_a_new_recording(name: str, tmp_path: Path, keys: Keys) -> None:
    """A task's images may lie elsewhere, and an optimizer that has a state makes it in the task's first step."""
    same_rate = ["train.schedule=constant", *(["strategy.retrain_lr=1"] if name.startswith(("packnet", "epn")) else [])]
    run(compose([*SMALL, *RUNS[name], *same_rate, "train.batch_size=2000"]), tmp_path / "run", quiet=True)
    assert 1 <= keys.recorded <= MOST_RECORDINGS[name]


def learner_of(*words: str) -> Any:
    return assemble(compose([*SMALL, *words])).learner


def test_recorded_steps_need_a_gpu() -> None:
    with pytest.raises(ConfigurationError, match=r"train.cuda_graphs=true needs a GPU, and this run is on cpu"):
        learner_of("train.cuda_graphs=true")
    with pytest.raises(ConfigurationError, match=r"must be one of auto, true, false, not 'sometimes'"):
        compose([*SMALL, "train.cuda_graphs=sometimes"]).check()


class Reading(SupervisedPlugin):
    """Reads the loss in each step, which cannot be recorded."""

    def after_backward(self, strategy: Any, **_: Any) -> None:
        assert strategy.loss.item() >= 0.0


class Clipping(GradientClipping):
    """Changes what its base class knows how to record."""

    def before_update(self, strategy: Any, **_: Any) -> None:
        super().before_update(strategy)


@pytest.mark.parametrize("plugin", [Reading(), Clipping(1.0)])
def test_plugins_that_say_nothing_of_graphs_are_called_in_each_step(plugin: Any, keys: Keys, caplog: Any) -> None:
    caplog.set_level("INFO")
    learner = learner_of("strategy=naive", "train.clip_norm=null")
    learner.plugins.insert(0, plugin)
    for _ in range(2):
        steps = learner._graphs.steps([], {})
        assert type(steps) is Steps
    assert [record.message for record in caplog.records if "CUDA" in record.message] == [
        f"steps are not recorded as CUDA graphs: the plugin {type(plugin).__name__} takes part in steps"
    ]
    learner._graphs.wanted = "true"
    with pytest.raises(ConfigurationError, match=r"steps cannot be recorded .*; use auto"):
        learner._graphs.steps([], {})


def test_rates_are_held_where_they_are() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5, fused=True)
    hold_rates(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.5, "on a CPU it is a number"
    set_rates(optimizer, [0.25])
    assert optimizer.param_groups[0]["lr"] == 0.25
    held = torch.tensor(0.5)
    optimizer.param_groups[0]["lr"] = held
    set_rates(optimizer, [0.125])
    assert held.item() == 0.125
