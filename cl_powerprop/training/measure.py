"""Tests and validations of a learner, kept task by task until the run has entered them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

from cl_powerprop.training.meters import EvaluationMeter, Measured


class Measure:
    """Measures some tasks of a stream: ``measure("test", tasks)``. A run that goes on measures those that are missing.

    Args:
        learner: has the meter among its plugins.
        streams: of the benchmark, by name.
        meter: measures.
        identified: returns the share of each task's samples whose task was inferred right in the last test.
        timed: returns a context that counts the time inside.

    Attributes:
        is_on: it is measuring.
    """

    def __init__(
        self,
        learner: Any,
        streams: Mapping[str, Sequence[Any]],
        meter: EvaluationMeter,
        identified: Callable[[], Mapping[int, float]],
        timed: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._learner = learner
        self._streams = streams
        self._meter = meter
        self._identified = identified
        self._timed = timed
        self._known: dict[str, list[Measured]] = {}  # in the order of the tasks, by purpose
        self._inferred: dict[int, float] = {}  # what `identified` has said in another process
        self._purpose = ""  # of the evaluation that goes on

    @property
    def is_on(self) -> bool:
        return bool(self._purpose)

    def __call__(self, stream: str, tasks: Sequence[int], purpose: str = "") -> dict[int, Measured]:
        """Return what each task measures; nothing if the benchmark has no such stream.

        Args:
            stream: its name.
            tasks: indices of its experiences.
            purpose: of the evaluation, by which it is known; the stream's name by default.
        """
        if not tasks or stream not in self._streams:
            return {}
        self._purpose = purpose or stream
        left = tasks[len(self._known.get(self._purpose, ())) :]
        if left:
            with self._timed():
                self._learner.eval([self._streams[stream][task] for task in left])
            self._known[self._purpose] = self._measured()
        known, self._purpose = self._known[self._purpose], ""
        return dict(zip(tasks, known, strict=True))

    def _measured(self) -> list[Measured]:
        """Return what is known of the evaluation that goes on."""
        return [*self._known.get(self._purpose, ()), *self._meter.measured.values()]

    def identified(self) -> dict[int, float]:
        """Return the share of each task's samples whose task was inferred right in the last test."""
        return self._inferred | dict(self._identified())

    def entered(self) -> None:
        """Forget what was measured: the run's results have it now."""
        self._known, self._inferred = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured and is not entered yet, as JSON values."""
        known = self._known | ({self._purpose: self._measured()} if self.is_on else {})
        values = {purpose: [asdict(each) for each in measured] for purpose, measured in known.items()}
        return {"measured": values, "identified": list(self.identified().items()) if "test" in known else []}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        measured, identified = state.get("measured", {}), state.get("identified", ())
        self._known = {key: [Measured(**each) for each in values] for key, values in measured.items()}
        self._inferred = {int(task): share for task, share in identified}
