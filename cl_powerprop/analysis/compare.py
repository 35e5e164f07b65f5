"""`cl-powerprop compare`: tables, figures and a report over run folders."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.table import Table
from rich.text import Text

from cl_powerprop.analysis.comparison import Comparison, compare_runs
from cl_powerprop.analysis.figures import DRAWINGS, draw_figures
from cl_powerprop.analysis.matplotlib_elements import FORMATS
from cl_powerprop.analysis.notes import MOST_DRAWN, notes
from cl_powerprop.analysis.report import render_report
from cl_powerprop.analysis.runs import each_row, load_runs
from cl_powerprop.analysis.tables import (
    csv_bytes,
    format_estimate,
    heading,
    markdown,
    pairwise_table,
    seeds_of,
    smallest_p,
    summary_table,
)
from cl_powerprop.analysis.verdicts import TITLE, zero_forgetting
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.files import write_file
from cl_powerprop.output import say, say_table


@dataclass(frozen=True)
class Compared:
    """A comparison, and the files that were written into a folder."""

    folder: Path
    files: list[str]
    comparison: Comparison


def compare(
    paths: Iterable[str | os.PathLike[str]],
    out: Path,
    *,
    by: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
    allow_mixed: bool = False,
    formats: Sequence[str] = FORMATS[:2],
    quiet: bool = False,
) -> Compared:
    """Compare the runs at or below some paths and write tables, figures and `report.html` into ``out``.

    Of very many groups, figures show the best only (:data:`~cl_powerprop.analysis.notes.MOST_DRAWN`).

    Args:
        paths: run folders, or folders that hold them.
        out: the folder to write; files of an earlier comparison in it are replaced.
        by: columns to group by (see :func:`compare_runs`).
        metrics: names of the metrics to report.
        baseline: compare each group with this one only.
        allow_mixed: compare runs even if their benchmarks, data or tasks differ.
        formats: of the figures' files: "png", "svg", "pdf".
        quiet: print nothing.

    Raises:
        UserError: for paths without runs, runs that are not comparable, or unknown names.
    """
    unknown = [suffix for suffix in formats if suffix not in FORMATS]
    if unknown or not formats:
        raise ConfigurationError(f"--format {','.join(unknown) or 'names none'}: choose from: {', '.join(FORMATS)}")
    loaded = load_runs(paths, progress=not quiet)
    comparison = compare_runs(loaded, by, metrics, allow_mixed)
    summary, pairwise = summary_table(comparison), pairwise_table(comparison, baseline)
    drawn, said = comparison.best(MOST_DRAWN, baseline), notes(comparison, baseline)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_file(out / "summary.csv", csv_bytes(summary))
        write_file(out / "pairwise.csv", csv_bytes(pairwise))
        write_file(out / "summary.md", markdown(comparison, summary, pairwise, said).encode())
        for name in DRAWINGS:  # an earlier comparison may have written more of them
            for suffix in FORMATS:
                (out / f"{name}.{suffix}").unlink(missing_ok=True)
        figures = draw_figures(drawn, out, formats)
        report = render_report(comparison, summary, pairwise, drawn, said)
        write_file(out / "report.html", report.encode())
    except OSError as error:
        raise RunFolderError(f"the comparison cannot be written to {out}: {error.strerror or error}") from error
    files = ["summary.csv", "summary.md", "pairwise.csv", "report.html", *figures]
    if not quiet:
        _print(comparison, summary, pairwise, said, out)
    return Compared(out, files, comparison)


def _print(
    comparison: Comparison, summary: pd.DataFrame, pairwise: pd.DataFrame, said: Sequence[str], out: Path
) -> None:
    table = Table(title=Text(heading(comparison)))
    table.add_column("group")
    for name in ("seeds", *(metric.label for metric in comparison.headline), TITLE):
        table.add_column(Text(name), justify="right")
    cells = {(row.group, row.metric): row for row in each_row(summary)}
    kept = zero_forgetting(comparison)
    for label in comparison.groups:
        shown = [format_estimate(metric, cells.get((label, metric.name))) for metric in comparison.headline]
        table.add_row(Text(label), str(seeds_of(comparison, label)), *shown, kept[label][0])
    say_table(table, 140)
    say(f"mean ± half the 95 % t-interval. {smallest_p(pairwise)}")
    for line in said:
        say(f"note: {line}")
    for line in comparison.warnings:
        say(f"warning: {line}")
    say(f"tables and figures: {out}")
    say(f"report: {out / 'report.html'}")
