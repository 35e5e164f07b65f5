"""What a run folder says of a run that a script of one's own made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from cl_powerprop.config import RunConfig, shareable
from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.naming import against, flat
from cl_powerprop.record import Facts
from cl_powerprop.sparsity.masked_weight import MaskedWeight

if TYPE_CHECKING:
    from cl_powerprop.parts import Parts


def describe(
    parts: Parts, config: RunConfig | None, settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[Facts, dict[str, Any]]:
    """Return the facts of a run and the content of its `config.yaml`.

    Args:
        parts, config, settings, facts: see :meth:`~cl_powerprop.results.results.Results.open`.

    Raises:
        ConfigurationError: if nothing says what the benchmark is, or for a fact that runs do not have.
    """
    learner = parts.learner
    optimizer = learner.optimizer  # None for a learner that has none, such as Avalanche's StreamingLDA
    if config is None and "benchmark" not in facts:
        raise ConfigurationError("say what the benchmark is, as in benchmark='split_cifar', or give its config")
    names = [each.name for each in fields(Facts)]
    for name in facts:
        check_choice("facts of a run", name, names)
    known: dict[str, Any] = {
        "strategy": type(learner).__name__,
        "scenario": "task" if parts.labels_tasks else None,
        "model": type(learner.model).__name__,
        "optimizer": None if optimizer is None else type(optimizer).__name__.lower(),
        "device": str(learner.device),
        "task_names": parts.task_names,
    }
    alphas = {module.alpha for module in learner.model.modules() if isinstance(module, MaskedWeight)}
    if len(alphas) == 1:
        known["alpha"] = alphas.pop()
    if parts.sparsity is not None:
        controller = parts.sparsity.controller
        known |= {"controller": type(controller).__name__, "target_sparsity": controller.target}
    written: dict[str, Any] = {}
    if config is not None:
        known |= {"benchmark": config.benchmark.name, "data": config.data.name, "scenario": config.benchmark.scenario}
        shown = shareable(config)
        written = {group: shown[group] for group in ("benchmark", "data")}
    defaults = {} if optimizer is None else optimizer.defaults
    numbers = {name: value for name, value in defaults.items() if isinstance(value, int | float)}
    written |= {
        "train": {"epochs": learner.train_epochs, "batch_size": learner.train_mb_size},
        "optimizer": numbers,
        **parts.strategy.settings(),
        **settings,
    }
    whole = Facts(**known | dict(facts))
    return whole, written | {"seed": whole.seed}


def group_name(facts: Facts, written: Mapping[str, Any]) -> str:
    """Return the name of all runs of a script that differ from this one in the seed only.

    What the script's options are by default is not known; those that are 0 or absent are left out.
    """
    parts = ("strategy", "benchmark", "data", "model", "alpha", "optimizer")
    row = {**dict(flat(written)), **{part: getattr(facts, part) for part in parts}}
    return against(row, {**{key: value for key, value in row.items() if not value}, "alpha": 1.0})
