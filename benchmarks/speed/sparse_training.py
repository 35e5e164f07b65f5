"""Time of a training step with each controller, as a multiple of a dense step, and what an update and memory cost."""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from common import make_config, synchronize
from torch import nn

from cl_powerprop.assemble import choose_device
from cl_powerprop.networks.classifier import Classifier
from cl_powerprop.registry import find
from cl_powerprop.sparsity import (
    Controller,
    GradualPruning,
    IterativePruning,
    OneShotPruning,
    RigL,
    SparseEvolutionaryTraining,
    StaticRandom,
    TopKAST,
    powerpropagate,
)

ROUNDS, EVERY = 7, 20  # each round has one update
DEFAULT_EVERY = 100
STOP = 10 * ROUNDS * EVERY
SHAPE, CLASSES, BATCH = (1, 28, 28), 10, 128
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "lenet_300_100": ("mlp", {"hidden": [300, 100]}),
    "lenet5": ("lenet5", {}),
}
CONTROLLERS: dict[str, Callable[..., Controller]] = {
    "one_shot": lambda *args, **options: OneShotPruning(*args, at=EVERY // 2, **options),
    "iterative": lambda *args, **options: IterativePruning(*args, every=EVERY, rounds=10 * ROUNDS, **options),
    "gradual": lambda *args, **options: GradualPruning(*args, every=EVERY, stop=STOP, **options),
    "static": StaticRandom,
    "set": lambda *args, **options: SparseEvolutionaryTraining(*args, every=EVERY, stop=STOP, **options),
    "rigl": lambda *args, **options: RigL(*args, every=EVERY, stop=STOP, **options),
    "top_kast": lambda *args, **options: TopKAST(*args, every=EVERY, stop=STOP, **options),
}


class Loop:
    """A bare training loop over random images, dense or with a controller.

    Attributes:
        seconds: of each step.
    """

    def __init__(self, network: str, controller: str, alpha: float, device: torch.device) -> None:
        torch.manual_seed(0)
        architecture, options = NETWORKS[network]
        body = find("model", architecture).make(SHAPE, bias=True, **options)
        self.model = Classifier(body, SHAPE, [CLASSES]).to(device)
        if alpha != 1.0:
            powerpropagate(self.model, alpha)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, fused=True)
        make = CONTROLLERS.get(controller)
        self.controller = make and make(self.model, self.optimizer, sparsity=0.9)
        self.images = torch.randn(BATCH, *SHAPE, device=device)
        self.labels = torch.randint(CLASSES, (BATCH,), device=device)
        self.seconds: list[float] = []

    def train(self, steps: int) -> None:
        """Make some steps."""
        # On one thread of a CPU its own time, whatever else the machine does; a GPU is waited for.
        clock = time.process_time if self.images.device.type == "cpu" else time.perf_counter
        for _ in range(steps):
            start = clock()
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(self.images), self.labels).backward()
            self.optimizer.step()
            if self.controller is not None:
                self.controller.step()
            synchronize(self.images.device)
            self.seconds.append(clock() - start)

    def kept_bytes(self) -> int:
        """Return the bytes that are kept from step to step: weights, gradients, the optimizer's state and masks."""
        kept: list[Any] = [*self.model.parameters(), *self.model.buffers()]
        kept += [parameter.grad for parameter in self.model.parameters()]
        kept += [value for state in self.optimizer.state.values() for value in state.values()]
        for each in self.controller.weights if self.controller else ():
            kept += [*vars(each).values()]
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in kept if torch.is_tensor(each)}
        return sum(storage.nbytes() for storage in storages.values())


def measure() -> pd.DataFrame:
    """Return one row for each network, controller and alpha.

    ``step`` is the median over rounds of a round's median step without an update, against that of dense training with
    the same alpha, and ``step_plain`` with alpha 1; ``update`` is what an update adds, as a share of the steps from one
    to the next at the default interval. Against dense training with alpha 1, ``kept`` is the memory that lasts from
    step to step, and ``peak`` the most that the step of an update takes on a CPU, activations included.
    """
    config = make_config()
    torch.set_num_threads(config.train.threads)
    device = choose_device(config.device)
    rows = [row for network in NETWORKS for row in _measure_network(network, device)]
    return pd.DataFrame(rows)


def _measure_network(network: str, device: torch.device) -> list[dict[str, Any]]:
    variants = [(name, alpha) for name in ("dense", *CONTROLLERS) for alpha in (1.0, 2.0)]
    loops = {variant: Loop(network, *variant, device) for variant in variants}
    for loop in loops.values():
        loop.train(EVERY)  # warms up
        loop.seconds.clear()
    for _ in range(ROUNDS):
        for loop in loops.values():
            loop.train(EVERY)
    times = {variant: _rounds(loop.seconds) for variant, loop in loops.items()}
    kept = loops["dense", 1.0].kept_bytes()
    peak = _peak_bytes(loops["dense", 1.0])
    rows = []
    for (name, alpha), (steps, added) in times.items():
        rows.append(
            {
                "network": network,
                "controller": name,
                "alpha": alpha,
                "ms_a_step": 1000.0 * statistics.median(steps),
                "step": _median_ratio(steps, times["dense", alpha][0]),
                "step_plain": _median_ratio(steps, times["dense", 1.0][0]),
                "update": _median_ratio(added, steps) / DEFAULT_EVERY,
                "kept": loops[name, alpha].kept_bytes() / kept,
                "peak": _peak_bytes(loops[name, alpha]) / peak,
            }
        )
    return rows


def _rounds(seconds: list[float]) -> tuple[list[float], list[float]]:
    """Return of each round the median of a step without an update, and what the step with one takes longer."""
    rounds = [seconds[i : i + EVERY] for i in range(0, len(seconds), EVERY)]
    steps = [statistics.median(each[:-1]) for each in rounds]
    return steps, [each[-1] - step for each, step in zip(rounds, steps, strict=True)]


def _median_ratio(values: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(values, others, strict=True))


def _peak_bytes(loop: Loop) -> int:
    """Return the largest size of all tensors within an update's step."""
    loop.train(EVERY - 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loop.train(1)
    events = [each for each in profile.profiler.kineto_results.events() if each.name() == "[memory]"]
    sizes = itertools.accumulate(each.nbytes() for each in sorted(events, key=lambda each: each.start_ns()))
    return loop.kept_bytes() + loop.images.nbytes + max(sizes)
