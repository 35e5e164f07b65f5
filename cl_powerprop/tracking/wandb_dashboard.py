"""`cl-powerprop dashboard`: a saved W&B workspace with panels for the runs of this package."""

import json
from typing import Any

from cl_powerprop import registry
from cl_powerprop.errors import UserError
from cl_powerprop.evaluation.metrics import Metric
from cl_powerprop.tracking.stream import AVERAGE
from cl_powerprop.tracking.wandb_account import open_account

NAME = "cl-powerprop"
TASKS = 10  # how many have a panel of their own
_FURTHER = "Further metrics"  # closed at first: many runs log none of them


def workspace(project: str, entity: str, tasks: int = TASKS) -> Any:
    """Return the workspace, not saved yet: forgetting curves, metrics, capacity, masks, training.

    Runs are grouped by the name that each has logged for itself and all that differ from it in the seed only: a line is
    the mean over the runs of a group, with their range.

    Args:
        project, entity: of the runs to show.
        tasks: how many tasks, from the first on, have a forgetting curve in a panel of their own.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    group = wr.Config("group")

    def over_tasks(title: str, curve: str) -> Any:
        return wr.LinePlot(
            title=title,
            x="progress",
            y=[curve],
            title_x="tasks trained",
            groupby=group,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )

    def all_curves(title: str, pattern: str, x: str = "progress", title_x: str = "tasks trained") -> Any:
        return wr.LinePlot(title=title, x=x, metric_regex=pattern, title_x=title_x, max_runs_to_show=20)

    def by_group(metric: Metric) -> Any:
        title = metric.label[:1].upper() + metric.label[1:]
        return wr.BarPlot(title=title, metrics=[metric.name], groupby=group)

    metrics = registry.metrics()
    logged: list[Metric] = [metric for metric in metrics.values() if metric.function is not None]
    forgetting = [
        over_tasks("Average test accuracy of the tasks so far", f"test/{AVERAGE}"),
        all_curves("Test accuracy of every task", "test/accuracy/task_.*"),
        *(over_tasks(f"Test accuracy of task {task}", f"test/accuracy/task_{task:02}") for task in range(tasks)),
    ]
    compared = [
        *(
            wr.ScatterPlot(
                title=f"Accuracy against {label}",
                x=wr.SummaryMetric(metric),
                y=wr.SummaryMetric("average_accuracy"),
                z=wr.Config("model.alpha"),
            )
            for metric, label in (("capacity_used", "capacity"), ("total_size", "total size"))
        ),
        *(by_group(metric) for metric in logged if metric.level == "headline"),
        by_group(metrics["validation_accuracy"]),  # the one to choose settings by
    ]
    further = [by_group(metric) for metric in logged if metric.level == "table"]
    matrices = [
        wr.MediaBrowser(title=title, media_keys=[f"pictures/{key}"], num_columns=3)
        for title, key in (
            ("Accuracy matrix", "accuracy_matrix"),
            ("Masks, by the task that froze their weights", "mask_composition"),
            ("Mask overlap", "mask_overlap"),
        )
    ]
    capacity = [
        over_tasks("Capacity used", "capacity/used"),
        all_curves("Reused share of each layer's weights", "capacity/.*/reused"),
        all_curves("Newly frozen share of each layer's weights", "capacity/.*/newly_frozen"),
    ]
    training = [
        all_curves("Training loss", "train/loss/.*", "step", "optimizer steps"),
        all_curves("Training accuracy", "train/accuracy/.*", "step", "optimizer steps"),
    ]
    sparsity = [
        all_curves("Sparsity", "sparsity/all", "step", "optimizer steps"),
        all_curves("Sparsity of each layer", "sparsity/.*", "step", "optimizer steps"),
    ]
    sections = {
        "Forgetting curves": forgetting,
        "Groups compared": compared,
        "Accuracy matrix and masks": matrices,
        "Capacity": capacity,
        "Training": training,
        "Sparse training": sparsity,
        _FURTHER: further,
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name=title, panels=panels, is_open=title != _FURTHER) for title, panels in sections.items()
        ],
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("group")]),
    )


def specification(made: Any) -> str:
    """Return the workspace as JSON, as it would be saved."""
    content = json.loads(made._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps(content, indent=2)


def create(project: str, entity: str | None, tasks: int = TASKS) -> str:
    """Save the workspace and return its address.

    Raises:
        UserError: if the account cannot be used, or W&B refuses.
    """
    account = open_account()
    try:
        made = workspace(project, entity or str(account.default_entity), tasks)
        made.save()
    except Exception as error:
        raise UserError(f"the dashboard was not saved: {' '.join(str(error).split())}") from error
    return str(made.url)
