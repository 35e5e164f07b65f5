"""Which handlers of an event of Avalanche's do anything: only those are called."""

from collections.abc import Callable, Sequence
from typing import Any

from avalanche.core import BasePlugin, BaseSGDPlugin, SupervisedPlugin
from avalanche.evaluation.metric_definitions import GenericPluginMetric, PluginMetric
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.templates.base_sgd import PeriodicEval

Listener = Callable[..., Any]


def listeners(strategy: SupervisedTemplate, event: str) -> list[Listener]:
    """Return the handlers of ``event`` of the learner's plugins, in order, without those that do nothing.

    A learner that handles the event itself, as Avalanche's SCR does, is the only one: it calls its plugins.
    """
    method = f"_{event}"
    if getattr(type(strategy), method) is not getattr(SupervisedTemplate, method):
        return [lambda strategy, **options: getattr(strategy, method)(**options)]
    return [getattr(plugin, event) for plugin in strategy.plugins if listens(plugin, event)]


def listens(plugin: Any, event: str) -> bool:
    """Return whether a plugin does anything at an event."""
    if isinstance(plugin, EvaluationPlugin):
        return (
            event in EvaluationPlugin.__dict__
            or any(_metric_listens(metric, event) for metric in plugin.metrics)
            or any(_overrides(logger, event) for logger in plugin.loggers)
        )
    if isinstance(plugin, PeriodicEval) and event == "after_training_iteration":
        return bool(plugin.peval_mode == "iteration")
    return _overrides(plugin, event)


def speaks_for(plugin: Any, method: str, events: Sequence[str]) -> bool:
    """Return whether a plugin has a method that knows all its handlers of some events.

    The handlers of a derived class, or of the object itself, are not known to a method of its base class.
    """
    classes = type(plugin).__mro__
    says = next((index for index, each in enumerate(classes) if method in vars(each)), None)
    if says is None:
        return False
    return not any(event in vars(each) for event in events for each in (plugin, *classes[:says]))


def _overrides(listener: Any, event: str) -> bool:
    """Return whether ``listener`` handles ``event`` with more than an inherited empty method."""
    if event in getattr(listener, "__dict__", {}):
        return True
    handler = getattr(type(listener), event, None)
    return handler is not None and all(
        handler is not getattr(base, event, None)
        for base in (SupervisedPlugin, BaseSGDPlugin, BasePlugin, PluginMetric)
    )


def _metric_listens(metric: Any, event: str) -> bool:
    """Return whether a metric acts on ``event``; Avalanche's generic ones override all handlers and filter inside."""
    if not _overrides(metric, event):
        return False
    if isinstance(metric, GenericPluginMetric) and getattr(type(metric), event) is getattr(
        GenericPluginMetric, event, None
    ):
        if event.startswith("before_"):
            mode = "train" if "training" in event else "eval"
            return bool(metric._reset_at == "iteration" and metric._mode == mode)
        return bool(metric._mode == ("train" if "training" in event else "eval"))
    return True
