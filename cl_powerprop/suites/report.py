"""What a suite leaves: `league.csv`, `league.md`, a figure, and the comparison of all its runs."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.tables import csv_bytes, format_estimate, format_number, format_value, markdown_header
from cl_powerprop.errors import StorageError, UserError
from cl_powerprop.evaluation.metrics import Metric
from cl_powerprop.files import write_file
from cl_powerprop.output import say, say_table
from cl_powerprop.privacy import redact
from cl_powerprop.registry import metrics
from cl_powerprop.shown import in_markdown
from cl_powerprop.suites.definition import Suite
from cl_powerprop.suites.figure import draw_figure
from cl_powerprop.suites.overrides import without_places
from cl_powerprop.suites.protocol import Outcome, entries
from cl_powerprop.suites.table import ESTIMATED, MEANS, Row, best_of_any_budget, rows, table

TABLE, COMPARISON = "league.csv", "comparison"
_WIDTH = 200  # of the printed table, where there is no terminal
_DIGITS = 4  # of a setting that was chosen


def write_report(suite: Suite, outcomes: Sequence[Outcome], folder: Path, recorded: Sequence[Row] = ()) -> None:
    """Write the tables and figures of a suite, and print the tables.

    Args:
        suite: with all its methods.
        outcomes: what came of those that this call was for.
        folder: of the suite.
        recorded: rows of other methods, which stay in the table.

    Raises:
        StorageError: if they cannot be written.
    """
    problems: list[str] = []
    both = {row.entry: row for row in (*recorded, *rows(outcomes, problems))}
    found = [both[entry] for entry in entries(suite) if entry in both]
    try:
        write_file(folder / TABLE, csv_bytes(table(found)))
        write_file(folder / "league.md", redact(_markdown(suite, found, problems)).encode())
        figures = draw_figure(found, suite.title, folder)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise StorageError(f"the table cannot be written to {folder}: {error.strerror or error}") from error
    runs = [path for outcome in outcomes for path in (outcome.runs or {}).values()]
    if runs:
        compare(runs, folder / COMPARISON, quiet=True)
    for title, part in _parts(suite, found):
        _print(title, part)
    for line in (*_reasons(found), *problems):
        say(line)
    for name in ("league.md", TABLE, *figures, *([f"{COMPARISON}/report.html"] if runs else [])):
        say(f"{folder / name}")


def _parts(suite: Suite, found: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the tables with their titles."""
    equal = [row for row in found if not row.entry.any_budget]
    parts = [(f"{suite.title}: equal steps", equal)]
    if best := best_of_any_budget(found):
        parts.append((f"{suite.title}: the best of any budget, by validation accuracy", best))
    return parts


def _columns() -> list[Metric]:
    return [metrics()[name] for name in (*ESTIMATED, *MEANS) if name in metrics()]


def _headings() -> list[str]:
    about = ["needs task at test", "keeps samples", "needs number of tasks", "steps a task", "seeds", "settings"]
    return ["method", *(metric.label for metric in _columns()), *about]


def _cells(row: Row) -> list[str]:
    """Return what the table shows of a method, after its name."""
    shown = [
        format_estimate(metric, row.measured[metric.name])
        if metric.name in ESTIMATED
        else format_value(metric, row.measured[metric.name].mean)
        for metric in _columns()
    ]
    if row.needs is None:
        return [*shown, *["-"] * 4, "0", _ended(row)]
    identity, buffer, n_tasks = row.needs
    known = [identity or "no", "yes" if buffer else "no", "yes" if n_tasks else "no"]
    settings = ", ".join(f"{key.partition('.')[2] or key} {_short(value)}" for key, value in row.settings.items())
    return [*shown, *known, format_number(row.steps, ".0f"), str(len(row.seeds)), settings]


def _ended(row: Row) -> str:
    return "refused" if row.refused else "failed"


def _short(value: str) -> str:
    try:
        return f"{float(value):.{_DIGITS}g}"
    except ValueError:
        return value


def _print(title: str, found: Sequence[Row]) -> None:
    shown = Table(title=Text(title))
    names = _headings()
    for name in names:
        shown.add_column(Text(name), justify="left" if name in ("method", "settings") else "right")
    for row in found:
        shown.add_row(*map(Text, [row.entry.label, *_cells(row)]))
    say_table(shown, _WIDTH)


def _reasons(found: Sequence[Row]) -> list[str]:
    """Return a line for each method that has not all its runs, and for each that has trials that were not complete."""
    lines = []
    for row in found:
        if row.reason:
            lines.append(f"{row.entry.label}: {_ended(row)}: {row.reason}")
        if bad := row.trials[1]:
            lines.append(f"{row.entry.label}: {bad} of {row.trials[0]} trials diverged or failed")
    return lines


def _command(suite: Suite, found: Sequence[Row]) -> str:
    """Return the command that makes the table, which names the methods if these are not all."""
    names = [*dict.fromkeys(row.entry.name for row in found)]
    return suite.command + (f" --methods {','.join(names)}" if {*suite.methods, *suite.any_budget} - {*names} else "")


def _markdown(suite: Suite, found: Sequence[Row], problems: Sequence[str]) -> str:
    names = _headings()
    lines = [f"# {suite.title}", ""]
    lines += [f"`{_command(suite, found)}`; all runs have: `{' '.join(without_places(suite.common))}`.", ""]
    tuning, seeds = suite.tuning, ", ".join(map(str, suite.seeds))
    lines.append(
        f"Each method: {tuning.trials} trials on validation data with seed {tuning.seed}"
        + (f" and `{' '.join(tuning.settings)}`" if tuning.settings else "")
        + f"; the best one once on test data with seeds {seeds}. Mean ± half the 95 % t-interval over these."
    )
    for title, part in _parts(suite, found):
        lines += ["", f"## {in_markdown(title)}", ""]
        lines += markdown_header(names, "l" + "r" * (len(names) - 2) + "l")
        for row in part:
            cells = [row.entry.label, *_cells(row)]
            lines.append("| " + " | ".join(map(in_markdown, cells)) + " |")
    if said := [*_reasons(found), *problems]:
        lines += ["", *(f"- {in_markdown(line)}" for line in said)]
    return "\n".join(lines) + "\n"
