"""How sparse a trained network is, and what that saves: the metrics of sparse training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cl_powerprop.evaluation.flops import count_flops
from cl_powerprop.evaluation.metrics import OF_SPARSE_TRAINING
from cl_powerprop.sparsity import select_task

if TYPE_CHECKING:
    from cl_powerprop.parts import Parts
    from cl_powerprop.sparsity import LayerCapacity

Density = Mapping[str, float]  # share of each layer's weights


@dataclass(frozen=True)
class Efficiency:
    """How sparse the network of a run is. A value is None where it is not known.

    Attributes:
        sparsity: share of the masked weights that are 0 in the network that is used; with a mask for each task, the
            mean over tasks.
        training_flops: FLOPs of the whole training relative to those of dense training.
        inference_flops: FLOPs of a forward pass relative to the dense network's; with a mask for each task, the mean
            over tasks.
        exempt_layers: number of weights of each layer that sparse training leaves dense.
    """

    sparsity: float | None = None
    training_flops: float | None = None
    inference_flops: float | None = None
    exempt_layers: Mapping[str, int] = field(default_factory=dict)

    def metrics(self) -> dict[str, float | None]:
        """Return the metrics by name."""
        return {name: getattr(self, name) for name in OF_SPARSE_TRAINING}


def measure_efficiency(parts: Parts, capacity: Sequence[LayerCapacity]) -> Efficiency:
    """Return the efficiency of a trained network.

    Args:
        parts: of the run. Where the shape of its samples is not known, FLOPs are not known either.
        capacity: how much of each layer each task uses; empty without masks of tasks.
    """
    if parts.sparsity is not None:
        controller = parts.sparsity.controller
        active = {row.layer: row.active / row.weights for row in controller.report()}
        inference, training = _relative_flops(parts, [active, controller.training_density()])
        return Efficiency(controller.sparsity, training, inference, controller.exempt)
    tasks: dict[int, list[LayerCapacity]] = {}
    for row in capacity:
        if row.kind == "masked":
            tasks.setdefault(row.task, []).append(row)
    if tasks:
        used = [sum(row.kept for row in rows) / sum(row.weights for row in rows) for rows in tasks.values()]
        densities = [{row.layer: row.kept / row.weights for row in rows} for rows in tasks.values()]
        flops = _relative_flops(parts, densities)
        return Efficiency(1.0 - fmean(used), None, None if None in flops else fmean(flops))
    if not parts.architecture:  # a network of the user's own may be sparse in ways of its own
        return Efficiency()
    return Efficiency(0.0, 1.0, 1.0)


def _relative_flops(parts: Parts, densities: Sequence[Density]) -> list[Any]:
    """Return the relative FLOPs with each of these densities; None for each if they cannot be counted."""
    shape = parts.architecture.get("sample_shape")
    if not shape:
        return [None] * len(densities)
    # Heads differ in width. The last task is tested last, but a run that goes on may have nothing left to test.
    select_task(parts.learner.model, parts.benchmark.streams["test"][parts.n_tasks - 1].task_label)
    flops = count_flops(parts.learner.model, shape)
    return [flops.relative(density) if flops.total else None for density in densities]
