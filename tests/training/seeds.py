"""Small runs of several seeds, alone and together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cl_powerprop.assemble import assemble
from cl_powerprop.composition import compose
from cl_powerprop.parts import Parts
from cl_powerprop.training.lockstep import Lockstep
from cl_powerprop.training.meters import EvaluationMeter, Measured, TrainingMeter

SMALL = (
    "data=digits",
    "benchmark=permuted",
    "benchmark.n_tasks=2",
    "model=mlp",
    "train.epochs=3",
    "train.batch_size=100",
)
HIDDEN = "model.hidden=[20,12]"  # of the MLP


@dataclass
class Run:
    """What a seed has trained, and what was seen of it.

    Attributes:
        parts: of the run.
        epochs: loss and accuracy of each epoch.
        hashes: of the logits of each learned task, after each task.
        frozen: after each task, the stored weights of each masked layer, and which of them are frozen.
        together: epochs that were trained together with other seeds.
    """

    parts: Parts
    epochs: list[Measured] = field(default_factory=list)
    hashes: list[dict[int, str]] = field(default_factory=list)
    frozen: list[dict[str, tuple[Tensor, Tensor]]] = field(default_factory=list)
    together: int = 0

    @property
    def learner(self) -> Any:
        return self.parts.learner

    @property
    def state(self) -> dict[str, Tensor]:
        """The network's state, without the numbers of batches, which validations increase."""
        state = self.learner.model.state_dict()
        return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}

    @property
    def moments(self) -> dict[str, Tensor]:
        """The tensors of the optimizer's state."""
        state = self.learner.optimizer.state_dict()["state"]
        return {
            f"{index}/{name}": value
            for index, values in state.items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }

    def train(self, change: Callable[[Any], None]) -> None:
        learner = self.learner
        meter = EvaluationMeter()
        training = TrainingMeter(lambda task, epoch, step, measured: self.epochs.append(measured))
        learner.plugins[:0] = [training, meter]
        change(learner)
        trains_together = learner._trains_together

        def counted() -> bool:
            steps = learner.clock.train_iterations
            done = bool(trains_together())
            self.together += learner.clock.train_iterations > steps
            return done

        learner._trains_together = counted
        streams = self.parts.benchmark.streams
        for task, experience in self.parts.curriculum:
            self.parts.train(experience)
            learner.eval([streams["test"][index] for index in range(task + 1)])
            self.hashes.append({index: measured.logits for index, measured in meter.measured.items()})
            allocator = getattr(getattr(self.parts.strategy, "plugin", None), "allocator", None)
            weights = {} if allocator is None else allocator.weights
            self.frozen.append({name: (allocator.phi(name).detach().clone(), weights[name].frozen) for name in weights})


def nothing(learner: Any) -> None:
    """Change nothing of a learner."""


def train(seeds: Sequence[int], *words: str, together: bool, change: Callable[[Any], None] = nothing) -> list[Run]:
    """Train a run of each seed, in lockstep or one after the other, and return them.

    Args:
        seeds: the seeds.
        words: overrides of the config.
        together: in lockstep.
        change: called with each learner before it trains.
    """
    made = [Run(assemble(compose([*SMALL, *words, f"seed={seed}"]))) for seed in seeds]
    if not together:
        for run in made:
            run.train(change)
        return made
    lockstep = Lockstep()
    for run in made:
        run.learner.lockstep = lockstep
    for ended in lockstep.run([partial(run.train, change) for run in made]):
        if ended.error is not None:
            raise ended.error
    return made


def assert_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], tolerance: float) -> None:
    """Compare tensors of the same names: floats up to a tolerance, and all else, such as masks, to the bit."""
    assert first.keys() == second.keys()
    assert first
    for name, value in first.items():
        if value.is_floating_point():
            assert torch.allclose(second[name], value, rtol=tolerance, atol=tolerance), name
        else:
            assert torch.equal(second[name], value), name


def assert_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Compare tensors of the same names to the bit."""
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
