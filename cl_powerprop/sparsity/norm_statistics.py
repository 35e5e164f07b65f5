"""Batch-norm statistics of a masked network: the running ones were gathered in training, before it was masked."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cl_powerprop.errors import ConfigurationError

_LEAST = 64  # samples whose statistics say enough, however small the batches of evaluations are
_SINGLE = "Expected more than 1 value per channel when training"  # torch's words


@contextlib.contextmanager
def needs_two_samples() -> Iterator[None]:
    """Say in one line that batch norm got a single sample.

    Raises:
        ConfigurationError: if it did.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:  # torch.compile wraps the former in the latter
        if _SINGLE not in str(error):
            raise
        raise ConfigurationError(
            "batch norm cannot normalise a single sample: it needs batches, and tasks, of at least 2 "
            "(train.batch_size), or use another norm (model.norm=group, layer or none)"
        ) from error


def _tracking(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def statistics_size(model: nn.Module, size: int) -> int:
    """Return the size of the batches that statistics are taken from: at least 64 samples, if a batch norm takes any."""
    return max(size, _LEAST) if _tracking(model) else size


@contextlib.contextmanager
def _measuring(norms: list[_BatchNorm], momentum: float | None) -> Iterator[None]:
    before = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.training, norm.momentum = True, momentum
    try:
        with needs_two_samples():
            yield
    finally:
        for norm, (training, momentum) in zip(norms, before, strict=True):
            norm.training, norm.momentum = training, momentum


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norms of a model in evaluation mode use each batch's own statistics; the running ones do not change."""
    with _measuring(_tracking(model), 0.0):
        yield


@torch.no_grad()
def recalibrate(model: nn.Module, outputs: Iterable[Tensor]) -> None:
    """Recompute the running statistics of all batch norms; a model without any is not changed.

    Args:
        model: it is in evaluation mode meanwhile, except for its batch norms.
        outputs: an iterator that runs the model on one batch at a time; the statistics become the mean over the
            batches.
    """
    norms = _tracking(model)
    if not norms:
        return
    was_training = model.training
    model.eval()
    with _measuring(norms, None):  # momentum None: the mean over all batches since the reset
        for norm in norms:
            norm.reset_running_stats()
        for _ in outputs:
            pass
    model.train(was_training)
