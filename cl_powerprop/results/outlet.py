"""Where the rows of a run go: `curves.csv`, and the sinks with what each of them remembers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any

from cl_powerprop.results.tables import CURVES, Tables
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.tracking.run_figures import RunFigures
from cl_powerprop.tracking.stream import Outcome, Row, RowStream, RunView, SinkConfig, open_sinks

if TYPE_CHECKING:
    from cl_powerprop.record import Facts
    from cl_powerprop.sparsity import LayerCapacity


class _Curves:
    """Adds rows to `curves.csv`, with the run's id before each."""

    _HEADER = ("run_id", *(field.name for field in fields(Row)))

    def __init__(self, tables: Tables, run_id: str) -> None:
        self._tables = tables
        self._run_id = run_id
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)

    def flush(self) -> None:
        self._tables.add(CURVES, self._HEADER, [(self._run_id, *astuple(row)) for row in self._rows])
        self._rows.clear()


class Outlet:
    """Opens the row stream of a run, also of one that is resumed.

    Args:
        folder: of the run.
        tables: of the run.
        sinks: the options of each sink, by its name.
        config: the run's whole config, for the sinks to show.
        multirun: name of the multirun that the run is a job of, None for a run alone.
        name: of the run among the jobs of its multirun, None for a run alone.
    """

    def __init__(
        self,
        folder: RunFolder,
        tables: Tables,
        sinks: Mapping[str, SinkConfig],
        config: Mapping[str, Any],
        multirun: str | None,
        name: str | None,
    ) -> None:
        self._folder = folder
        self._tables = tables
        self._sinks = {name: sink for name, sink in sinks.items() if sink.enabled}
        self._memories: dict[str, dict[str, Any]] = {name: {} for name in self._sinks}
        self._config = config
        self._multirun = multirun
        self._name = name
        self._written = 0  # rows of a run that is resumed
        self._resumed_at: int | None = None

    def open(
        self,
        facts: Facts,
        capacity: Sequence[LayerCapacity],
        steps: Sequence[int],
        tell: Callable[[str], None],
        outcome: Callable[[], Outcome],
    ) -> RowStream:
        """Open everything; the arguments are attributes of :class:`RunView`."""
        views = {
            name: RunView(
                facts=facts,
                config=self._config,
                folder=self._folder.path,
                capacity=capacity,
                steps=steps,
                multirun=self._multirun,
                resumed_at=self._resumed_at,
                memory=memory,
                figures=RunFigures(self._folder.path),
                tell=tell,
                outcome=outcome,
                name=self._name,
            )
            for name, memory in self._memories.items()
        }
        curves = _Curves(self._tables, facts.run_id)
        return RowStream(curves, open_sinks(self._sinks, views), tell, self._written)

    def memories(self) -> dict[str, Any]:
        """Return what the sinks remember, by name; what JSON does not have becomes text, for it is anybody's."""
        kept = {name: memory for name, memory in self._memories.items() if memory}
        remembered: dict[str, Any] = json.loads(json.dumps(kept, default=str))
        return remembered

    def resume(self, rows: int, step: int, memories: Mapping[str, Any]) -> None:
        """Go on after some rows and optimizer steps; ``memories`` are those of before, among other values."""
        self._written, self._resumed_at = rows, step
        kept = {name: memories.get(name) for name in self._sinks}
        self._memories = {name: dict(memory) if isinstance(memory, Mapping) else {} for name, memory in kept.items()}
