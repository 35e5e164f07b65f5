"""One figure of the report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Chart:
    """One figure of the report, for Plotly.

    Attributes:
        name, title: of the figure.
        about: what it shows and how to read it: its caption, and its description for screen readers.
        traces: Plotly's. Each has ``meta`` {"group": ..., "choice": ...}: the group and the choice with which it is
            shown and hidden, or None.
        layout: Plotly's.
        choices: {value: text} of the drop-down list above the figure; empty for none.
        columns, rows: the numbers as a table, if there is one; each row has the choice that it belongs to, or None,
            and its cells, of which the first is the group.
        height: in pixels; None for the usual one.
    """

    name: str
    title: str
    about: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    choices: dict[str, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    rows: Sequence[tuple[str | None, list[str]]] = field(default_factory=list)
    height: int | None = None

    @property
    def legend(self) -> set[str]:
        """The groups that its traces show side by side."""
        return {trace["meta"]["group"] for trace in self.traces} - {None}
