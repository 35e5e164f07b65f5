"""The accuracy matrix of a run and what belongs to it, task by task; and whether anything was forgotten."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.evaluation.metrics import Matrix, Measurements, average_forgetting


class Evaluations:
    """Collects every evaluation of a run.

    Attributes:
        matrix: ``[T, T]``, accuracy on task j after training task i; NaN where not evaluated.
        references: of each reference run that is known, accuracy on each task ``[T]``.
        validation: accuracy on each task's validation data in its last evaluation: at the end, all are measured.
        identified: for each task, the share of test samples whose task was inferred right, in its last evaluation.
    """

    def __init__(self, n_tasks: int) -> None:
        self.n_tasks = n_tasks
        self.matrix: Matrix = np.full((n_tasks, n_tasks), np.nan)
        self.references: dict[str, Matrix] = {}
        self.validation: dict[int, float] = {}
        self.identified: dict[int, float] = {}
        self._logits: dict[int, str] = {}  # hash of each task's test logits when it was just learned
        self._unchanged: dict[int, bool] = {}  # tasks whose logits were compared with their first ones
        self._all: list[NDArray[np.float64]] = []  # of all tasks in order, also within tasks; NaN: not tested
        self._learned: list[int] = []  # for each task, which of them was the first after its training
        self._within = False

    def add(self, task: int, accuracies: Mapping[int, float], logits: Mapping[int, str]) -> None:
        """Enter the evaluation after ``task`` and compare each learned task's logits with its first ones.

        Args:
            task: the last that is learned.
            accuracies: on each task that was tested.
            logits: a hash of the logits of each task that was tested.
        """
        for index, accuracy in accuracies.items():
            self.matrix[task, index] = accuracy
            if index in self._logits:
                self._compare(index, logits[index])
            elif index <= task:
                self._logits[index] = logits[index]
        self._learned += [len(self._all)] * (task + 1 - len(self._learned))
        self._all.append(self.matrix[task].copy())

    def add_within(self, accuracies: Mapping[int, float], logits: Mapping[int, str]) -> None:
        """Enter an evaluation made while a task trains; ``logits`` are those of tasks learned before it."""
        self._within = True
        row = np.full(self.n_tasks, np.nan)
        row[list(accuracies)] = list(accuracies.values())
        self._all.append(row)
        for task in self._logits.keys() & logits.keys():
            self._compare(task, logits[task])

    def _compare(self, task: int, logits: str) -> None:
        self._unchanged[task] = self._unchanged.get(task, True) and self._logits[task] == logits

    def average_accuracy(self, tasks: int, accuracies: Mapping[int, float] | None = None) -> float:
        """Return the mean test accuracy on the first tasks; NaN if one of them was not tested.

        Args:
            tasks: how many are learned.
            accuracies: by task, of one test; None for the test after the last of these tasks.
        """
        if not tasks:
            return math.nan
        row = self.matrix[tasks - 1] if accuracies is None else accuracies
        measured = [task for task in range(tasks) if accuracies is None or task in accuracies]
        return float(np.mean([row[task] for task in measured])) if len(measured) == tasks else math.nan

    def average_forgetting(self, tasks: int) -> float:
        """Return the forgetting so far, averaged over the tasks before the last that is learned; NaN if not tested."""
        return average_forgetting(self.matrix[:tasks, :tasks])

    @property
    def zero_forgetting(self) -> bool | None:
        """Whether the logits of every task stayed the same to the bit while later ones were trained.

        None if no task was followed by the training of another, or such a task was tested once only.
        """
        earlier = [task for task, learned in enumerate(self._learned) if learned < self._learned[-1]]
        if not earlier or any(task not in self._unchanged for task in earlier):
            return None
        return all(self._unchanged[task] for task in earlier)

    @property
    def only_confused(self) -> bool:
        """Whether nothing was forgotten so far, but some tasks were inferred wrongly, which costs accuracy too."""
        return self.zero_forgetting is True and any(share < 1.0 for share in self.identified.values())

    def measurements(self, **capacity: Any) -> Measurements:
        """Return what metrics are computed from; ``capacity`` are the other attributes of :class:`Measurements`."""
        return Measurements(
            matrix=self.matrix,
            evaluations=np.array(self._all) if self._within else None,
            learned=tuple(self._learned),
            references=self.references,
            validation=self.validation,
            identified=self.identified,
            **capacity,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "matrix": self.matrix.tolist(),
            "references": {name: accuracy.tolist() for name, accuracy in self.references.items()},
            "validation": list(self.validation.items()),
            "identified": list(self.identified.items()),
            "logits": list(self._logits.items()),
            "unchanged": list(self._unchanged.items()),
            "evaluations": [row.tolist() for row in self._all],
            "learned": self._learned,
            "within": self._within,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        self.matrix = np.array(state["matrix"])
        self.references = {name: np.array(accuracy) for name, accuracy in state["references"].items()}
        self.validation, self.identified = _by_task(state["validation"]), _by_task(state["identified"])
        self._logits, self._unchanged = _by_task(state["logits"]), _by_task(state["unchanged"])
        self._all = [np.array(row) for row in state["evaluations"]]
        self._learned, self._within = list(state["learned"]), state["within"]


def _by_task(pairs: Sequence[tuple[int, Any]]) -> dict[int, Any]:
    return {int(task): value for task, value in pairs}
