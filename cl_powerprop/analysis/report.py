"""`report.html`: the tables and interactive figures of a comparison, in one file that works offline."""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cl_powerprop import __version__, registry
from cl_powerprop.analysis.charts import make_charts
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.style import group_styles
from cl_powerprop.analysis.tables import (
    best_groups,
    format_estimate,
    format_interval,
    format_number,
    format_value,
    heading,
    smallest_p,
)
from cl_powerprop.analysis.verdicts import TITLE, zero_forgetting
from cl_powerprop.documents import LARGEST_YAML
from cl_powerprop.files import read_file
from cl_powerprop.output import without_escapes
from cl_powerprop.privacy import redact
from cl_powerprop.shown import as_given, shell_word

_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST_CONFIG = 20_000  # characters
_FACTS = ("strategy", "alpha", "optimizer", "seed", "status", "device", "host", "git_commit", "started")


def render_report(
    comparison: Comparison, summary: pd.DataFrame, pairwise: pd.DataFrame, drawn: Comparison, notes: Sequence[str]
) -> str:
    """Return the report as HTML.

    Args:
        comparison, summary, pairwise: what the tables show.
        drawn: what the figures show: the same groups, or the best of them.
        notes: what is said below the table.
    """
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = summary[summary["group"].isin(drawn.groups)]
    charts = [chart for chart in make_charts(drawn, shown) if chart is not None and chart.traces]
    plotly, script = get_plotlyjs(), (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        heading=heading(comparison),
        groups=group_styles(drawn.groups),
        charts=charts,
        specifications=_script_json({chart.name: {"data": chart.traces, "layout": chart.layout} for chart in charts}),
        summary=_summary(comparison, summary),
        pairs=_pairs(comparison, pairwise),
        smallest_p=smallest_p(pairwise),
        notes=notes,
        runs=_runs(comparison),
        warnings=comparison.warnings,
        version=__version__,
        plotly=plotly,
        script=script,
        hashes=" ".join(map(_hash, (plotly, script))),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
    )


def _hash(script: str) -> str:
    """Return the hash by which the page's policy allows a script: no other one can run, whatever a run is called."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _script_json(content: Any) -> str:
    """Return JSON that is safe between script tags; numbers that are not finite become null."""
    return json.dumps(_plain(content), separators=(",", ":")).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray | pd.Series):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _summary(comparison: Comparison, summary: pd.DataFrame) -> dict[str, Any]:
    """Return the headings of the columns, and for each group its cells: text, number, and whether it is the best."""
    cells = {(row.group, row.metric): row for row in each_row(summary)}
    best, kept = best_groups(comparison, summary), zero_forgetting(comparison)
    rows = []
    for label, names in comparison.groups.items():
        values: list[tuple[str, float, bool]] = [(str(len(names)), len(names), False)]
        for name, metric in comparison.metrics.items():
            row = cells.get((label, name))
            mean = np.nan if row is None else float(row.mean)
            values.append((format_estimate(metric, row), mean, (label, name) in best))
        rows.append((label, [*values, (*kept[label], False)]))
    return {"columns": ["runs", *(metric.label for metric in comparison.metrics.values()), TITLE], "rows": rows}


def _pairs(comparison: Comparison, pairwise: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "names": (comparison.metrics[row.metric].label, row.a, row.b),
            "numbers": (
                (str(row.n), row.n),
                (format_number(row.mean, "+.4f"), row.mean),
                (format_interval(row), row.t_low),
                (format_number(row.p, ".3g"), row.p),
                (format_number(row.p_holm, ".3g"), row.p_holm),
            ),
        }
        for row in each_row(pairwise)
    ]


def _config(folder: Path) -> str:
    """Return the text of a run's `config.yaml`, of a long one the beginning."""
    try:
        text = read_file(folder / "config.yaml", LARGEST_YAML).decode()
    except (OSError, ValueError):  # it has changed since the runs were loaded
        return "config.yaml cannot be read"
    shown = without_escapes(redact(text[:_LONGEST_CONFIG]).replace("\r\n", "\n"))
    return shown + ("\n…" if len(text) > _LONGEST_CONFIG else "")


def _runs(comparison: Comparison) -> dict[str, Any]:
    """Return the headings of the numeric columns, and one row per run."""
    runs = comparison.runs.runs
    metrics = {metric.name: metric for metric in (*comparison.headline, registry.metrics()["seconds.total"])}
    numbers = runs.reindex(columns=list(metrics)).apply(pd.to_numeric, errors="coerce")
    rows = []
    for label, names in comparison.groups.items():
        for name in names:
            run: Any = runs.loc[name]
            folder = Path(run["path"])
            place = as_given(folder, name if str(folder).isprintable() else None)
            values = zip(metrics.values(), numbers.loc[name].astype(float), strict=True)
            rows.append(
                {
                    "name": name,
                    "group": label,
                    "numbers": [(str(run["seed"]), run["seed"]), *((format_value(*pair), pair[1]) for pair in values)],
                    "facts": {key: run[key] for key in _FACTS if key in run and pd.notna(run[key])},
                    "command": f"cl-powerprop repeat -- {shell_word(place)}",
                    "config": _config(folder),
                    "messages": run["messages"] if isinstance(run["messages"], list) else [],
                }
            )
    return {"columns": ["seed", *(metric.label for metric in metrics.values())], "rows": rows}
