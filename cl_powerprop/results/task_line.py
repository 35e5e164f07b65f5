"""What a line of progress says of a task."""

import math

from cl_powerprop.record import Facts
from cl_powerprop.results.evaluations import Evaluations


def task_line(
    facts: Facts,
    evaluations: Evaluations,
    tasks: int,
    capacity: float,
    fitted: float,
    sparsity: float | None = None,
) -> str:
    """Return the last task's number and name, its accuracy, average accuracy and forgetting so far, and the capacity.

    Args:
        facts: of the run.
        evaluations: so far.
        tasks: how many are learned.
        capacity: share of the maskable weights in use.
        fitted: training accuracy, for a task that is neither tested nor validated yet; NaN if nothing was trained.
        sparsity: of the masked weights, which is said in place of the capacity; None without a controller.
    """
    task, average = tasks - 1, evaluations.average_accuracy(tasks)
    measured = {
        "accuracy": float(evaluations.matrix[task, task]),
        "validation accuracy": evaluations.validation.get(task, math.nan),
        "training accuracy": fitted,
    }
    name = next((name for name, accuracy in measured.items() if not math.isnan(accuracy)), "accuracy")
    so_far = f" (average {average:z.3f})" if task and not math.isnan(average) else ""
    confused = " (tasks confused, none forgotten)" if evaluations.only_confused else ""
    is_tested = not math.isnan(measured["accuracy"])
    forgetting = evaluations.average_forgetting(tasks) if is_tested else math.nan
    parts = (
        f"{name} {_number(measured[name])}{so_far}",
        f"forgetting {_number(forgetting)}{confused}",
        f"capacity {100 * capacity:.1f} %" if sparsity is None else f"sparsity {100 * sparsity:.1f} %",
    )
    return f"task {tasks}/{facts.n_tasks} {facts.task_names[task]}: {', '.join(parts)}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:z.3f}"
