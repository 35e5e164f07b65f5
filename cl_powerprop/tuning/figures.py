"""The figures of a study: how the best value grew, which options matter, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cl_powerprop.analysis.matplotlib_elements import FORMATS, RC, lay_out, many_panels, save_figure
from cl_powerprop.analysis.style import COLOURS
from cl_powerprop.tuning.study_file import number_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from cl_powerprop.tuning.objectives import Objective
    from cl_powerprop.tuning.study import Study

_BLUE, _ORANGE, _GREEN, _GREY = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[6]
_LEAST = 4  # complete trials from which importances say something
_SMALL = 8  # points, of a legend


def draw_figures(study: Study) -> list[str]:
    """Write the figures that there is data for to the folder of the study, and return the files' names."""
    drawn: list[str] = []
    with mpl.rc_context(RC):
        for name, make in (("history", _history), ("importance", _importance), ("front", _front)):
            figure = make(study)
            if figure is not None:
                lay_out(figure)
                drawn += save_figure(figure, study.folder / name, FORMATS[:2])
    return drawn


def _titles(study: Study) -> list[str]:
    """Return a title for each objective's panel: none if there is only one."""
    labels = [objective.metric.label for objective in study.objectives]
    return labels if len(labels) > 1 else [""]


def _units(axis: Axis, objective: Objective) -> None:
    if objective.metric.unit == "%":
        axis.set_major_formatter(PercentFormatter(1.0))


def _history(study: Study) -> Figure | None:
    """Draw each objective of all complete trials, the best one so far, and which trials did not learn all tasks."""
    complete, trials = study.complete, study.trials
    title = f"{len(trials)} trials, of which {len(complete)} have learned all tasks"
    figure, panels = many_panels(_titles(study), title, 3.4, 5.4)
    numbers = [number_of(trial) for trial in complete]
    others = sorted({number_of(trial) for trial in trials} - set(numbers))
    defaults = study.of_defaults
    for index, (objective, axes) in enumerate(zip(study.objectives, panels, strict=True)):
        values = np.array([trial.values[index] for trial in complete])
        best = objective.sign * np.maximum.accumulate(objective.sign * values)
        if others:
            axes.plot(
                others,
                [0.0] * len(others),
                "x",
                color=_GREY,
                markersize=4,
                transform=axes.get_xaxis_transform(),  # on the axis, for they have no value
                clip_on=False,
                label="pruned, or failed",
            )
        if defaults is not None and defaults in complete:
            axes.axhline(defaults.values[index], color=_GREEN, linestyle="--", linewidth=1, label="defaults")
        last = number_of(trials[-1])
        axes.step([*numbers, last], [*best, best[-1]], where="post", color=_ORANGE, label="best so far")
        axes.plot(numbers, values, "o", color=_BLUE, markersize=4, label="trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_ylabel(objective.metric.label)
        _units(axes.yaxis, objective)
    panels[0].legend(fontsize=_SMALL, loc="best")
    return figure


def _importance(study: Study) -> Figure | None:
    """Draw which share of each objective's variance each option explains (fANOVA)."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    complete = study.complete
    varied = [key for key in study.space.ranges if len({trial.params[key] for trial in complete}) > 1]
    if len(complete) < _LEAST or not varied:
        return None
    title = f"importance of each option, by fANOVA over {len(complete)} trials"
    figure, panels = many_panels(_titles(study), title, 0.8 + 0.4 * len(varied), 4.8)
    for index, axes in enumerate(panels):
        label = study.objectives[index].metric.label
        axes.set_xlim(0.0, 1.0)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(f"share of the variance of {label}")
        if len({trial.values[index] for trial in complete}) < 2:
            axes.set_title(f"{label}: the same in all trials", fontsize=_SMALL)
            axes.set_yticks([])
            continue
        shares = get_param_importances(
            study.optuna,
            evaluator=FanovaImportanceEvaluator(seed=0),
            params=varied,
            target=lambda trial, which=index: trial.values[which],
        )
        names = list(reversed(shares))
        axes.barh(names, [shares[name] for name in names], color=_BLUE, height=0.6)
        axes.grid(False, axis="y")
    return figure


def _front(study: Study) -> Figure | None:
    """Draw the first two objectives against each other, once for all trials and once around the front."""
    if len(study.objectives) < 2:
        return None  # what is best in one alone stands in the history
    first, second = study.objectives[:2]
    best, defaults = study.best(), study.of_defaults
    compared = [*best, *([defaults] if defaults in study.complete else [])]
    title = f"{first.metric.label} and {second.metric.label}"
    figure, panels = many_panels(["all trials", "the best ones"], title, 3.8, 4.8)
    for axes in panels:
        axes.plot(*_points(study.complete), "o", color=_GREY, markersize=4, label="trial")
        # From one trial to the next worse one in the first objective, the second stays what the better one reached.
        if len(study.objectives) == 2:  # of three, some trials of the front are beaten in these two
            axes.step(*_points(best), where="post", color=_ORANGE, linewidth=1)
        axes.plot(*_points(best), "o", color=_ORANGE, markersize=6, label="no other trial beats it in all objectives")
        axes.plot(*_points(compared[len(best) :]), "D", color=_GREEN, markersize=6, label="defaults")
        axes.set_xlabel(first.metric.label)
        axes.set_ylabel(second.metric.label)
        _units(axes.xaxis, first)
        _units(axes.yaxis, second)
    across, up = _points(compared)
    panels[1].set_xlim(_around(across))
    panels[1].set_ylim(_around(up))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=_SMALL)
    return figure


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis that shows some values with a margin."""
    margin = 0.1 * (max(values) - min(values)) or 0.01 * abs(values[0]) or 1.0
    return min(values) - margin, max(values) + margin


def _points(trials: Sequence[FrozenTrial]) -> tuple[list[float], list[float]]:
    return [trial.values[0] for trial in trials], [trial.values[1] for trial in trials]
