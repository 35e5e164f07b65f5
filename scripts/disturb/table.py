"""Results of cases: a CSV file that grows, and tables in Markdown made from it."""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .performed import IDENTICAL, Performed

COLUMNS = ("id", "case", "config", "point", "outcome", "repeated", "allowed", "seconds", "last_lines")
_BEGIN, _END = "<!-- made by scripts/chaos.py: begin -->", "<!-- made by scripts/chaos.py: end -->"
_KINDS = {
    "kill": "SIGKILL by the clock and at named moments, half of them twice",
    "operations": "SIGKILL before each file operation, and within each write",
    "power": "power cut before each file operation",
    "signal": "SIGTERM, SIGINT, SIGUSR1",
    "process": "SIGKILL and SIGTERM for separate processes",
    "disk": "full disk",
    "damage": "a file of the folder emptied, halved, with a flipped bit, or removed",
    "together": "12 starts in one folder at once",
    "sweep": "a process of a multirun of 12 jobs killed, or the command told to stop",
}

Row = dict[str, str]


def row(done: Performed) -> Row:
    """Return what is kept of a case, as text by column."""
    case = done.case
    repeated = "" if done.repeated is None else str(done.repeated)
    seconds = "" if done.seconds is None else f"{done.seconds:.2f}"
    values = (case.id, case.kind, case.config, case.point, done.outcome, repeated, str(done.allowed), seconds)
    return dict(zip(COLUMNS, (*values, done.last_lines), strict=True))


def read(file: Path) -> dict[str, Row]:
    """Return the rows of a file by the case's id, the last of each; none if there is no file."""
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        return {each["id"]: each for each in csv.DictReader(lines)}


def append(file: Path, new: Row) -> None:
    """Add a row to a file, which is made if need be."""
    begins = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerow(new)


def tables(rows: Iterable[Row]) -> str:
    """Return a table by kind of case and one by config."""
    rows = list(rows)
    kinds = [kind for kind in _KINDS if any(each["case"] == kind for each in rows)]
    configs = list(dict.fromkeys(each["config"] for each in rows))
    by_kind = _table("what was done", kinds, rows, "case", lambda kind: _KINDS[kind])
    by_config = _table("config", configs, rows, "config", lambda config: f"`{config}`")
    return f"{by_kind}\n\n{by_config}\n"


def _table(title: str, values: Sequence[str], rows: list[Row], column: str, named: Callable[[str], str]) -> str:
    lines = [
        f"| {title} | cases | identical results | steps repeated, of those allowed | longest end after a signal |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for value in values:
        own = [each for each in rows if each[column] == value]
        identical = sum(each["outcome"] == IDENTICAL for each in own)
        counted = [each for each in own if each["repeated"] and each["allowed"] != "0"]
        worst = max(counted, key=lambda each: int(each["repeated"]) / int(each["allowed"]), default=None)
        repeated = f"at most {worst['repeated']} of {worst['allowed']}" if worst else ""
        seconds = max((float(each["seconds"]) for each in own if each["seconds"]), default=None)
        ended = "" if seconds is None else f"{seconds:.1f} s"
        lines.append(f"| {named(value)} | {len(own)} | {identical} | {repeated} | {ended} |")
    return "\n".join(lines)


def put(document: Path, text: str) -> None:
    """Put tables between the markers of a document.

    Raises:
        ValueError: if it has no markers.
    """
    before, begin, rest = document.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise ValueError(f"{document} has no lines {_BEGIN} and {_END}")
    document.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")
