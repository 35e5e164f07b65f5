"""What is known of a run, typed, and the files of its folder that have it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import FileError, StorageError
from cl_powerprop.files import read_file
from cl_powerprop.record import Facts, Job, State, now, peak_memory_mb, seeds_together
from cl_powerprop.results.capacity import CapacityTable
from cl_powerprop.results.evaluations import Evaluations
from cl_powerprop.results.outlet import Outlet
from cl_powerprop.results.sparsity import SparsityTable
from cl_powerprop.results.tables import CURVES, SPARSITY, Tables
from cl_powerprop.results.timer import Timer
from cl_powerprop.run_folder import SCHEMA_VERSION, RunFolder
from cl_powerprop.shown import as_line
from cl_powerprop.tracking.stream import RowStream, SinkConfig

if TYPE_CHECKING:
    from cl_powerprop.training.meters import Measured

log = logging.getLogger("cl_powerprop")

_PLAIN = re.compile(r"[\w:+.-]{1,64}", re.ASCII)  # an id, or a time
_LARGEST = 2**26  # bytes of run.json
_SHARE = 0.02  # of the time that writing it may take: it grows with the number of tasks


class KeptResults:
    """Keeps what a run has found out, in files and in checkpoints.

    Args:
        folder: of the run.
        facts: what the run is.
        sinks: the options of each sink that measurements also go to, by its name.
        config: the run's whole config, for the sinks to show.
        multirun: name of the multirun that the run is a job of, None for a run alone.
        job: the run's place in the multirun, None for a run alone.

    Attributes:
        state: how far the run is.
        is_begun: the first test is over, or there is none.
        tested_experiences: how many experiences of the curriculum are trained and tested.
    """

    def __init__(
        self,
        folder: RunFolder,
        facts: Facts,
        sinks: Mapping[str, SinkConfig],
        config: Mapping[str, Any],
        multirun: str | None,
        job: Job | None,
    ) -> None:
        self.folder = folder
        self.facts = facts
        self.state = State()
        self.evaluations = Evaluations(facts.n_tasks)
        self.capacity = CapacityTable()
        self.sparsity = SparsityTable()
        self.is_begun = False
        self.tested_experiences = 0
        self._title = f"{job.title}: " if job else ""
        self._tables = Tables(folder)
        name = job.name if job and job.number is not None else None
        self._outlet = Outlet(folder, self._tables, sinks, config, multirun, name)
        self._rows: RowStream
        self._moment = (0, 0)  # epochs of the task and steps of the run that are finished
        self._last_epoch: Measured | None = None  # of the task in training
        self._fitted = math.nan  # training accuracy of the last task
        self._timer = Timer(self.state.seconds)
        self._told = 0.0  # seconds of the run when it last said how far it is
        self._due = 0.0  # when `run.json` is written next

    @property
    def trained_experiences(self) -> int:
        """How many experiences of the curriculum are trained."""
        return self.state.trained_experiences

    @property
    def is_resumed(self) -> bool:
        """Whether the run goes on from a checkpoint."""
        return bool(self.state.resumed)

    @property
    def trained_tasks(self) -> int:
        """How many tasks are learned."""
        return self.state.trained_tasks

    def tell(self, message: str) -> None:
        """Say something that a user should know, now and in `run.json`."""
        message = as_line(message)  # it may quote a file
        log.warning("%s%s", self._title, message)
        self.state.messages.append(message)

    def _begin(self) -> None:
        """Write the first files."""
        if not self.is_resumed:
            self._tables.restart()
        self.folder.reserve_room()
        self.write()

    def write(self, *, whole: bool = False) -> None:
        """Bring all files up to what is known.

        Args:
            whole: nothing more will come: all is brought to the disk.

        Raises:
            StorageError: if one cannot be written.
        """
        self.state.peak_memory_mb = round(peak_memory_mb(self.facts.device), 1)
        self._update_tables()
        self._tables.flush()
        self.evaluations.write(self.folder, self.facts.task_names, whole=whole)
        if whole:
            self._tables.finish()
        if whole or time.perf_counter() >= self._due:
            self._write_record(sync=whole)

    def _write_record(self, sync: bool = False) -> None:
        """Write `run.json`; while the run goes on, that takes no more than a share of the time."""
        start = time.perf_counter()
        self.folder.write_json("run.json", self.as_json(), sync=sync)
        end = time.perf_counter()
        self._due = end + (end - start) * self.facts.seeds_together / _SHARE

    def _update_tables(self) -> None:
        self.capacity.write(self._tables)
        self.sparsity.write(self._tables, self.facts.run_id)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        about = {"schema_version": SCHEMA_VERSION, "status": self.state.status}  # first of all
        return about | self.facts.as_json() | asdict(self.state) | self._outlet.memories()

    def _end(self, status: str) -> None:
        self._timer.lap()
        before = self.state.status
        self.state.status, self.state.finished = status, now()
        if status == "complete":
            try:
                self.write(whole=True)
            except BaseException:
                self.state.status, self.state.finished = before, None
                raise
        self.folder.give_up_reserve()
        if status != "complete":
            with contextlib.suppress(StorageError):
                self._write_record()  # first of all, in the room of the reserve
                self.write(whole=True)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is known, as JSON values and tensors: what a resumed run begins with.

        The rows of tables are in their files, which are on the disk when it returns.

        Raises:
            StorageError: if they cannot be written.
        """
        self._timer.lap()
        self._update_tables()
        evaluations = self.evaluations.state_dict()
        return {
            "run": self.as_json(),
            "rows": self._rows.written,
            "tables": self._tables.state_dict(),
            "capacity": self.capacity.state_dict(),
            **{f"evaluations/{name}": value for name, value in evaluations.items()},
            "loop": {
                "is_begun": self.is_begun,
                "tested_experiences": self.tested_experiences,
                "moment": self._moment,
                "last_epoch": None if self._last_epoch is None else asdict(self._last_epoch),
                "fitted": self._fitted,
                "told": self._told,
            },
        }

    def begun_before(self, record: Mapping[str, Any]) -> None:
        """Take over what a run that begins again is known by: its id, and where its sinks wrote."""
        known = [record.get(key) for key in ("run_id", "started")]
        if all(isinstance(value, str) and _PLAIN.fullmatch(value) for value in known):
            self.facts = self.facts.resumed(record)
            self._outlet.resume(0, 0, record)

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Take back what :meth:`state_dict` returned in another process; machine and versions are those of this one.

        Args:
            state: the values.
            step: optimizer steps that were done.
        """
        before = state["run"]
        together = self.facts.seeds_together
        self.facts = self.facts.resumed(before)
        self.state = State.from_json(before)
        self.state.status, self.state.finished, self.state.error = "running", None, None
        self.state.resumed.append(now())
        tables = self._tables.find(state["tables"] if "tables" in state else self._earlier_tables(state))
        self.capacity.load_state_dict(state["capacity"], tables)
        self.sparsity.load(tables)
        begin = "evaluations/"
        evaluations = {name.removeprefix(begin): value for name, value in state.items() if name.startswith(begin)}
        self.evaluations.load_state_dict(evaluations or state["evaluations"])
        self._tables.restore(tables)
        self._load_loop(state.get("loop", {}))
        with contextlib.suppress(OSError, FileError, ValueError, TypeError):  # newer: what the sinks have had since
            before = before | json.loads(read_file(self.folder.path / "run.json", _LARGEST))
        self._outlet.resume(state["rows"], step, before)
        changed = [
            f"{name} {state['run']['versions'].get(name)} -> {today}"
            for name, today in self.facts.versions.items()
            if state["run"]["versions"].get(name) != today
        ]
        if changed:
            self.tell(f"resumed with other versions, which may give other numbers: {', '.join(changed)}")
        if (ranks := before.get("ranks", 1)) != self.facts.ranks:
            self.tell(
                f"resumed by {self.facts.ranks} processes in place of {ranks}, which gives slightly other numbers"
            )
        if (seeds := seeds_together(before)) != together:
            self.tell(f"resumed with seeds_together={together} in place of {seeds}: numbers differ by rounding")

    def _earlier_tables(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state of the tables of a checkpoint of an earlier version, which has the numbers of rows."""
        rows = {CURVES: state["rows"], SPARSITY: state.get("sparsity", {}).get("rows", 0)}
        return {name: self._tables.adopt(name, number) for name, number in rows.items() if number}

    def _load_loop(self, state: Mapping[str, Any]) -> None:
        """Take back where the loop stands; that of an earlier version stands between two tests."""
        self.is_begun = state.get("is_begun", True)
        self.tested_experiences = state.get("tested_experiences", self.trained_experiences)
        is_tested = self.tested_experiences == self.trained_experiences
        self.capacity.enter(self.trained_tasks if is_tested else self.trained_tasks - 1)
        epochs, step = state.get("moment", (0, 0))
        self._moment = epochs, step
        if last := state.get("last_epoch"):
            from cl_powerprop.training.meters import Measured

            self._last_epoch = Measured(**last)
        self._fitted = state.get("fitted", math.nan)
        self._told = float(state.get("told", self.state.seconds.total))
