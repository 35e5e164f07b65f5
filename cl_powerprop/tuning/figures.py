"""The figures of a study: how the best value grew, which options matter, and the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from cl_powerprop.analysis.matplotlib_elements import FORMATS, RC, lay_out, many_panels, one_panel, save_figure
from cl_powerprop.analysis.style import COLOURS
from cl_powerprop.tuning.study_file import number_of

if TYPE_CHECKING:
    from cl_powerprop.tuning.study import Study

_BLUE, _ORANGE, _GREY = COLOURS[0], COLOURS[1], COLOURS[6]
_LEAST = 4  # complete trials from which importances say something


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


def _history(study: Study) -> Figure | None:
    """Draw each objective of all complete trials, and the best one so far."""
    complete = study.complete
    labels = [objective.metric.label for objective in study.objectives]
    figure, panels = many_panels(labels, f"{len(complete)} complete trials of {len(study.trials)}", 3.2, 4.6)
    numbers = [number_of(trial) for trial in complete]
    for index, (objective, axes) in enumerate(zip(study.objectives, panels, strict=True)):
        values = np.array([trial.values[index] for trial in complete])
        best = objective.sign * np.maximum.accumulate(objective.sign * values)
        axes.plot(numbers, values, "o", color=_BLUE, markersize=4, label="trial")
        axes.step(numbers, best, where="post", color=_ORANGE, label="best so far")
        axes.set_xlabel("trial")
        axes.set_ylabel(objective.metric.label)
        axes.legend(fontsize=8)
    return figure


def _importance(study: Study) -> Figure | None:
    """Draw which share of each objective's variance each option explains (fANOVA)."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    complete = study.complete
    varied = [key for key in study.space.ranges if len({trial.params[key] for trial in complete}) > 1]
    if len(complete) < _LEAST or not varied:
        return None
    labels = [objective.metric.label for objective in study.objectives]
    figure, panels = many_panels(labels, "importance of each option (fANOVA)", 0.6 + 0.4 * len(varied), 4.6)
    for index, axes in enumerate(panels):
        if len({trial.values[index] for trial in complete}) < 2:
            axes.set_title(f"{labels[index]}: the same in all trials", fontsize=8)
            continue
        shares = get_param_importances(
            study.optuna,
            evaluator=FanovaImportanceEvaluator(seed=0),
            params=varied,
            target=lambda trial, which=index: trial.values[which],
        )
        names = list(reversed(shares))
        axes.barh(names, [shares[name] for name in names], color=_BLUE)
        axes.set_xlim(0.0, 1.0)
    return figure


def _front(study: Study) -> Figure | None:
    """Draw the first two objectives against each other."""
    if len(study.objectives) < 2:
        return None
    first, second = study.objectives[:2]
    figure, axes = one_panel(f"{first.metric.label} and {second.metric.label}")
    complete = study.complete
    axes.plot(*_points(complete), "o", color=_GREY, markersize=4, label="trial")
    axes.plot(*_points(study.best()), "o-", color=_ORANGE, markersize=5, label="no other trial beats it in all")
    axes.set_xlabel(first.metric.label)
    axes.set_ylabel(second.metric.label)
    axes.legend(fontsize=8)
    return figure


def _points(trials: list) -> tuple[list[float], list[float]]:  # type: ignore[type-arg]
    return [trial.values[0] for trial in trials], [trial.values[1] for trial in trials]
