"""The accuracy matrix of a run and what belongs to it, task by task; and whether anything was forgotten."""

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cl_powerprop.evaluation.metrics import Matrix, Measurements
from cl_powerprop.run_folder import RunFolder, csv_text

MATRIX = "accuracy_matrix.csv"


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
        self._best = np.full(n_tasks, np.nan)  # accuracy on each task before the last that is learned
        # All evaluations in order, also within tasks: how many tasks were tested, which ones, and their accuracy.
        self._counts = array("q")
        self._tested = array("q")
        self._accuracies = array("d")
        self._ends: dict[int, int] = {}  # of those between tasks, the task that was learned last
        self._learned: list[int] = []  # for each task, which of them was the first after its training
        self._within = False
        self._last = -1  # task that was learned last
        self._written: int | None = 0  # rows of the matrix that are in its file; None if it is to be made anew

    def add(self, task: int, accuracies: Mapping[int, float], logits: Mapping[int, str]) -> None:
        """Enter the evaluation after ``task`` and compare each learned task's logits with its first ones.

        Args:
            task: the last that is learned.
            accuracies: on each task that was tested.
            logits: a hash of the logits of each task that was tested.
        """
        for index in accuracies:
            if index in self._logits:
                self._compare(index, logits[index])
            elif index <= task:
                self._logits[index] = logits[index]
        self._note(accuracies, task)

    def add_within(self, accuracies: Mapping[int, float], logits: Mapping[int, str]) -> None:
        """Enter an evaluation made while a task trains; ``logits`` are those of tasks learned before it."""
        self._within = True
        self._note(accuracies)
        for task in self._logits.keys() & logits.keys():
            self._compare(task, logits[task])

    def _note(self, accuracies: Mapping[int, float], task: int | None = None) -> None:
        """Note an evaluation: after the training of ``task``, or within it if that is None."""
        if task is not None:
            if task > self._last >= 0:
                self._best = np.fmax(self._best, self.matrix[self._last])
            self._last = task
            self._ends[len(self._counts)] = task
            self._learned += [len(self._counts)] * (task + 1 - len(self._learned))
            self.matrix[task, list(accuracies)] = list(accuracies.values())
            if self._written is not None and task < self._written:  # it was trained in parts
                self._written = None
        self._counts.append(len(accuracies))
        self._tested.extend(accuracies)
        self._accuracies.extend(accuracies.values())

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
        """Return the forgetting so far, averaged over the tasks before the last that is learned; NaN if not tested.

        It is that of :func:`~cl_powerprop.evaluation.metrics.average_forgetting`, without going through all rows.
        """
        return float((self._best - self.matrix[tasks - 1])[: tasks - 1].mean()) if tasks > 1 else 0.0

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
            evaluations=self._all() if self._within else None,
            learned=tuple(self._learned),
            references=self.references,
            validation=self.validation,
            identified=self.identified,
            **capacity,
        )

    def _all(self) -> Matrix:
        """Return all evaluations in order ``[E, T]``; NaN: not tested."""
        rows = np.full((len(self._counts), self.n_tasks), np.nan)
        rows[np.repeat(np.arange(len(rows)), self._counts), self._tested] = self._accuracies
        return rows

    def write(self, folder: RunFolder, names: Sequence[str], *, whole: bool = False) -> None:
        """Bring the matrix's file up to what is known: it has a row for each task so far.

        Args:
            folder: of the run.
            names: of the tasks.
            whole: write a row for every task, also for those that were not learned.

        Raises:
            StorageError: if it cannot be written.
        """
        known = self.n_tasks if whole else self._last + 1
        if whole or self._written is None or (known and not self._written):
            folder.write_csv(MATRIX, list(names), self.matrix[:known].tolist(), sync=whole)
        elif known > self._written:
            folder.append(MATRIX, csv_text(self.matrix[self._written : known].tolist()).encode())
        self._written = known

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values; what was measured as tensors, which grow with the tests alone."""
        values = {
            "references": {name: accuracy.tolist() for name, accuracy in self.references.items()},
            "validation": list(self.validation.items()),
            "identified": list(self.identified.items()),
            "logits": list(self._logits.items()),
            "unchanged": list(self._unchanged.items()),
            "ends": list(self._ends.items()),
            "within": self._within,
        }
        measured = {"counts": self._counts, "tested": self._tested, "accuracies": self._accuracies}
        return values | {name: torch.from_numpy(np.array(each)) for name, each in measured.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned.

        Raises:
            ValueError: if the tensors do not fit each other.
        """
        state = state if "ends" in state else _from_rows(state)
        self.references = {name: np.array(accuracy) for name, accuracy in state["references"].items()}
        self.validation, self.identified = _by_task(state["validation"]), _by_task(state["identified"])
        self._logits, self._unchanged = _by_task(state["logits"]), _by_task(state["unchanged"])
        ends, start = dict(state["ends"]), 0
        for index, count in enumerate(state["counts"].tolist()):
            part = slice(start, start := start + count)
            tested, accuracies = state["tested"][part].tolist(), state["accuracies"][part].tolist()
            self._note(dict(zip(tested, accuracies, strict=True)), ends.get(index))
        self.matrix = np.array(state["matrix"]) if "matrix" in state else self.matrix
        self._within = state["within"]
        self._written = None


def _from_rows(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a checkpoint of an earlier version, which has a row ``[T]`` for each evaluation, as today."""
    rows = torch.tensor(state["evaluations"], dtype=torch.float64)
    index, tested = torch.nonzero(~rows.isnan(), as_tuple=True)
    return {
        **state,
        "counts": torch.bincount(index, minlength=len(rows)),
        "tested": tested,
        "accuracies": rows[index, tested],
        "ends": list({evaluation: task for task, evaluation in enumerate(state["learned"])}.items()),
    }


def _by_task(pairs: Sequence[tuple[int, Any]]) -> dict[int, Any]:
    return {int(task): value for task, value in pairs}
