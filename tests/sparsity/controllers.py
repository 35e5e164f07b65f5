"""Every controller over a short training, and budgets of layers by plain formulas of the papers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cl_powerprop.sparsity import (
    Controller,
    GradualPruning,
    IterativePruning,
    OneShotPruning,
    RigL,
    SparseEvolutionaryTraining,
    StaticRandom,
    TopKAST,
)

from .networks import make_batch
from .recipes import Recipe

STEPS = 15

# As they are made for a training of STEPS steps: each changes its masks several times before the end.
CONTROLLERS: dict[str, Callable[..., Controller]] = {
    "one_shot": lambda *args, **options: OneShotPruning(*args, at=9, **options),
    "one_shot_at_the_end": OneShotPruning,
    "iterative": lambda *args, **options: IterativePruning(*args, every=4, rounds=3, **options),
    "rewinding": lambda *args, **options: IterativePruning(*args, every=4, rounds=3, rewind_to=2, **options),
    "gradual": lambda *args, **options: GradualPruning(*args, start=2, every=3, stop=12, **options),
    "static": StaticRandom,
    "set": lambda *args, **options: SparseEvolutionaryTraining(*args, every=3, stop=12, **options),
    "rigl": lambda *args, **options: RigL(*args, every=3, stop=12, **options),
    "top_kast": lambda *args, **options: TopKAST(*args, every=3, stop=12, **options),
}
ALWAYS_SPARSE = ("static", "set", "rigl", "top_kast")


def make(name: str, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> Controller:
    return CONTROLLERS[name](model, optimizer, **options)


def one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    controller: Controller | None,
    kind: str,
    seed: int,
    recipe: Recipe | None = None,
) -> None:
    """A step of training as anybody writes it."""
    x, y = make_batch(kind, seed)
    optimizer.zero_grad(set_to_none=recipe is None or recipe.set_to_none)
    nn.functional.cross_entropy(model(x), y).backward()
    if recipe is not None and recipe.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    if controller is not None:
        controller.step()


def erk_densities(shapes: dict[str, tuple[int, ...]], density: float, power: float = 1.0) -> dict[str, float]:
    """As in RigL's own code: of the layers that would exceed 1, the one that does so most is made dense; again."""
    dense: list[str] = []
    while True:
        budget = density * sum(torch.Size(shape).numel() for shape in shapes.values())
        budget -= sum(torch.Size(shapes[name]).numel() for name in dense)
        raw = {name: (sum(shape) / torch.Size(shape).numel()) ** power for name, shape in shapes.items()}
        weighted = sum(raw[name] * torch.Size(shapes[name]).numel() for name in shapes if name not in dense)
        epsilon = budget / weighted if weighted else 0.0
        result = {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}
        largest = max(result, key=lambda name: (name not in dense) * result[name])
        if largest in dense or result[largest] <= 1.0:
            return result
        dense.append(largest)


def expected_counts(distribution: str, shapes: dict[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Weights that each layer keeps, not rounded; all together under the name "all" for a global budget."""
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    if distribution == "global":
        return {"all": (1.0 - sparsity) * sum(sizes.values())}
    if distribution == "uniform":
        return {name: (1.0 - sparsity) * size for name, size in sizes.items()}
    return {name: share * sizes[name] for name, share in erk_densities(shapes, 1.0 - sparsity).items()}


def used_counts(controller: Controller, distribution: str) -> dict[str, int]:
    """Weights that each layer uses, or all together, counted in what the network computes with."""
    used = {name: int((weight.value != 0.0).sum()) for name, weight in controller.layers.items()}
    return {"all": sum(used.values())} if distribution == "global" else used
