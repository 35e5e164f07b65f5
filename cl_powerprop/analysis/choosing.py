"""The columns and metrics that a user can name for a comparison."""

import difflib
import textwrap
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import yaml

from cl_powerprop import registry
from cl_powerprop.analysis.runs import FACTS
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.evaluation.metrics import Metric, find_metric, headline_for

_LISTS = ("messages", "diverged_tasks", "error")  # facts that no runs have alike
_NAME, _WIDTH = 29, 100  # columns of the terminal that a metric's name takes, and that there are


def check_columns(runs: pd.DataFrame, by: Sequence[str], settings: list[str]) -> list[str]:
    """Return the columns of these names.

    Args:
        runs: the table of runs.
        by: the names; a setting may go without its group, as in labels: lr for optimizer.lr.
        settings: the columns that are settings.

    Raises:
        ConfigurationError: for a name that no column has, or more than one.
    """
    chosen = []
    for column in by:
        named = [column] if column in runs else [name for name in settings if name.rpartition(".")[2] == column]
        if len(named) > 1:
            raise ConfigurationError(f"--by {column}: there are {len(named)} such columns: {', '.join(named)}")
        if not named or named[0] in _LISTS:
            near = difflib.get_close_matches(column, [name for name in runs.columns if name not in _LISTS], n=1)
            hint = f"did you mean {near[0]}? " if near and not named else ""
            known = [name for name in ("strategy", *settings) if runs[name].nunique() > 1]
            fault = "runs cannot be grouped by it" if named else "runs have no such column"
            raise ConfigurationError(f"--by {column}: {fault}; {hint}those that vary: {', '.join(known) or 'none'}")
        chosen += named
    return list(dict.fromkeys(chosen))


def measured_metrics(runs: pd.DataFrame, columns: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics that some run has: those registered, then those of plugins that are not imported now."""
    known: dict[str, Metric] = registry.metrics()
    known |= {name: Metric(name, name, "", None, None) for name in columns if name not in known}
    measured = {
        name: metric
        for name, metric in known.items()
        if name in runs and pd.to_numeric(runs[name], errors="coerce").notna().any()
    }
    return headline_for(measured, runs["controller"], int(runs["n_tasks"].max()))


def choose_metrics(measured: dict[str, Metric], names: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of these names, labels or aliases; chosen ones are headline metrics.

    Raises:
        ConfigurationError: for a metric that no run has.
    """
    chosen = {}
    for name in names:
        metric = find_metric(name, measured)
        if metric is None:
            raise ConfigurationError(f"--metric {name}: {_reason(name, measured)}choose from: {', '.join(measured)}")
        chosen[metric.name] = replace(metric, level="headline")
    return chosen


def _reason(name: str, measured: dict[str, Metric]) -> str:
    """Return why no metric of that name can be reported, and what may have been meant."""
    known = find_metric(name, registry.metrics())
    if known is not None:
        return f"no run has {known.name}; "
    names = {each: metric.name for metric in measured.values() for each in metric.names}
    near = difflib.get_close_matches(name, names, n=1)
    return "no run has it; " + (f"did you mean {names[near[0]]}? " if near else "")


def describe_names() -> str:
    """Return what `compare --help` says of metrics and columns: their names, as they can be given and are shown."""
    lines = ["metrics, each by its name, by what tables call it, or by another name:"]
    lines += [f"  {metric.name:{_NAME}}  {', '.join(metric.names[1:])}" for metric in registry.metrics().values()]
    lines += ["", "columns for --by: facts of a run, metrics, and its options, with their group or without (lr):"]
    facts = [name for name in FACTS if name not in _LISTS]
    options = yaml.safe_load((registry.CONF / "run.yaml").read_text(encoding="utf-8"))
    groups = {group: list(options[group]) for group in ("train", "evaluation")}
    for group in registry.PACKAGES:
        groups[group] = [option for part in registry.parts(group).values() for option in part.defaults()]
    del groups["logger"]  # loggers change no number
    for name, columns in {"facts": facts, **groups}.items():
        prefix = "" if name == "facts" else f"{name}."
        shown = ", ".join(f"{prefix}{column}" for column in dict.fromkeys(columns) if column != "name")
        lines += textwrap.wrap(shown, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)
