"""`cl-powerprop dashboard`: a saved W&B workspace with the panels that runs of this package are read by."""

import json
from typing import Any

from cl_powerprop.errors import UserError
from cl_powerprop.tracking.wandb_account import open_account

NAME = "cl-powerprop"
TASKS = 10  # that have a panel of their own


def workspace(project: str, entity: str, tasks: int = TASKS) -> Any:
    """Return the workspace, not saved yet: forgetting curves, accuracy, capacity, masks, training.

    Runs are grouped by strategy: a line is the mean of a strategy's runs, with their range.

    Args:
        project, entity: of the runs to show.
        tasks: how many, from the first on, have a forgetting curve in a panel of their own.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    strategy = wr.Config("strategy.name")

    def over_tasks(title: str, curve: str) -> Any:
        return wr.LinePlot(
            title=title,
            x="progress",
            y=[curve],
            title_x="tasks trained",
            groupby=strategy,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )

    def all_curves(title: str, pattern: str, x: str = "progress", title_x: str = "tasks trained") -> Any:
        return wr.LinePlot(title=title, x=x, metric_regex=pattern, title_x=title_x, max_runs_to_show=20)

    forgetting = [
        all_curves("Test accuracy of every task", "test/accuracy/task_.*"),
        *(
            over_tasks(f"Test accuracy of task {task}, by strategy", f"test/accuracy/task_{task:02}")
            for task in range(tasks)
        ),
    ]
    compared = [
        wr.ScatterPlot(
            title="Accuracy against capacity",
            x=wr.SummaryMetric("capacity_used"),
            y=wr.SummaryMetric("average_accuracy"),
            z=wr.Config("model.alpha"),
        ),
        *(
            wr.BarPlot(title=title, metrics=[metric], groupby=strategy)
            for title, metric in (
                ("Average accuracy", "average_accuracy"),
                ("Average forgetting", "average_forgetting"),
                ("Validation accuracy", "validation_accuracy"),
            )
        ),
    ]
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
        all_curves("Reused, of each layer's weights", "capacity/.*/reused"),
        all_curves("Newly frozen", "capacity/.*/newly_frozen"),
    ]
    training = [
        all_curves("Training loss", "train/loss/.*", "step", "optimizer steps"),
        all_curves("Training accuracy", "train/accuracy/.*", "step", "optimizer steps"),
    ]
    sections = {
        "Forgetting curves": forgetting,
        "Strategies compared": compared,
        "Accuracy matrix and masks": matrices,
        "Capacity": capacity,
        "Training": training,
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[ws.Section(name=title, panels=panels, is_open=True) for title, panels in sections.items()],
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("strategy.name")]),
    )


def specification(made: Any) -> str:
    """Return what would be saved, as JSON."""
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
