"""Batch normalisation under masks: its running statistics are those of the network as it was trained, not as masked."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def _tracking(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


@contextlib.contextmanager
def _measuring(norms: list[_BatchNorm], momentum: float | None) -> Iterator[None]:
    before = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.training, norm.momentum = True, momentum
    try:
        yield
    finally:
        for norm, (training, momentum) in zip(norms, before, strict=True):
            norm.training, norm.momentum = training, momentum


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norms of a model in evaluation use each batch's own statistics; the running ones stay as they are."""
    with _measuring(_tracking(model), 0.0):
        yield


@torch.no_grad()
def recalibrate(model: nn.Module, outputs: Iterable[Tensor]) -> None:
    """Measure the running statistics of all batch norms anew; without any, do nothing.

    Args:
        model: in evaluation meanwhile, but for its batch norms.
        outputs: of the model, computed batch by batch as this iterates; statistics become the mean over the batches.
    """
    norms = _tracking(model)
    if not norms:
        return
    evaluated = model.training
    model.eval()
    with _measuring(norms, None):  # None: the mean over all batches since the reset
        for norm in norms:
            norm.reset_running_stats()
        for _ in outputs:
            pass
    model.train(evaluated)
