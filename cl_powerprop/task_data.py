"""The data of a run: its tasks as an Avalanche benchmark, or the very images and labels of one of them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from torch import Tensor

from cl_powerprop.assemble import choose_device, load_sequence
from cl_powerprop.composition import compose
from cl_powerprop.config import RunConfig
from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.stored_config import load_config
from cl_powerprop.training.benchmark import to_avalanche

SPLITS = ("train", "valid", "test")

Source = RunConfig | Sequence[str] | str | os.PathLike[str]
"""A run folder, a config, or overrides as the command takes them."""


def load_benchmark(source: Source, *, device: str = "auto", root: str | None = None) -> CLScenario[Any]:
    """Return the tasks of a run as an Avalanche benchmark on the fast path, for a script of your own.

    Its streams train, valid and test have an experience for each task, labelled from 0.

    Args:
        source: a run folder, a config, or overrides, as in ``["benchmark=split", "data=digits"]``.
        device: where the images go.
        root: folder of the data, if the run was given one as an absolute path.

    Raises:
        UserError: for a folder that holds no run, or data that is missing.
    """
    return to_avalanche(load_sequence(_config(source, root), choose_device(device)))


def load_task(
    source: Source, task: int, split: Literal["train", "valid", "test"] = "test", *, root: str | None = None
) -> tuple[Tensor, Tensor]:
    """Return a task's images and labels as a run sees them: normalised, permuted or rotated, relabelled.

    Args:
        source, root: see :func:`load_benchmark`.
        task: which task, from 0.
        split: "train", "valid" or "test".

    Returns:
        float32 ``[n, channels, height, width]`` and int64 ``[n]``, on the CPU.

    Raises:
        UserError: for a folder that holds no run, data that is missing, or a task or split that does not exist.
    """
    check_choice("split", split, SPLITS)
    sequence = load_sequence(_config(source, root), torch.device("cpu"))
    if not 0 <= task < len(sequence):
        raise ConfigurationError(f"there is no task {task}; the tasks are 0 to {len(sequence) - 1}")
    samples = getattr(sequence.tasks[task], split)
    return samples.images(), samples.labels


def _config(source: Source, root: str | None) -> RunConfig:
    if isinstance(source, RunConfig):
        config = source
    else:
        config = load_config(Path(source)) if isinstance(source, str | os.PathLike) else compose(source)
    config.check()
    return config if root is None else replace(config, data=replace(config.data, root=root))
