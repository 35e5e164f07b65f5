"""`report.html`: the figures of a comparison, interactive, in one file that works offline."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cl_powerprop import __version__
from cl_powerprop.analysis.charts import make_charts
from cl_powerprop.analysis.comparison import METRICS, Comparison
from cl_powerprop.analysis.runs import each_row
from cl_powerprop.analysis.style import colour, dash
from cl_powerprop.analysis.tables import format_estimate, format_number, heading, smallest_p

_TEMPLATES = Path(__file__).parent / "templates"
_FACTS = ("strategy", "alpha", "optimizer", "seed", "status", "device", "host", "git_commit", "started")


def render_report(comparison: Comparison, summary: pd.DataFrame, pairwise: pd.DataFrame) -> str:
    """Return the report as HTML."""
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = [chart for chart in make_charts(comparison, summary) if chart is not None and chart.traces]
    groups = [
        {"label": label, "colour": colour(index), "dashed": dash(index) > 0}
        for index, label in enumerate(comparison.groups)
    ]
    return environment.get_template("report.html.j2").render(
        heading=heading(comparison),
        groups=groups,
        charts=charts,
        specifications=_script_json({chart.name: {"data": chart.traces, "layout": chart.layout} for chart in charts}),
        summary=_summary(comparison, summary),
        pairs=_pairs(pairwise),
        smallest_p=smallest_p(pairwise),
        runs=_runs(comparison),
        warnings=comparison.warnings,
        version=__version__,
        plotly=get_plotlyjs(),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=(_TEMPLATES / "report.js").read_text(encoding="utf-8"),
    )


def _script_json(content: Any) -> str:
    """Return JSON that is safe between script tags; what is not finite becomes null."""
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
    cells = {(row.group, row.metric): row for row in each_row(summary)}
    rows = []
    for label, names in comparison.groups.items():
        values: list[tuple[str, Any]] = [(str(len(names)), len(names))]
        for metric in comparison.metrics:
            row = cells.get((label, metric))
            values.append((format_estimate(metric, row), None if row is None else float(row.mean)))
        rows.append((label, values))
    return {"columns": ["runs", *(METRICS.get(metric, metric) for metric in comparison.metrics)], "rows": rows}


def _pairs(pairwise: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "metric": METRICS.get(row.metric, row.metric),
            "a": row.a,
            "b": row.b,
            "n": row.n,
            "mean": row.mean,
            "mean_text": format_number(row.mean, "+.4f"),
            "p_text": format_number(row.p, ".3g"),
            "p_holm_text": format_number(row.p_holm, ".3g"),
            "interval": "-" if np.isnan(row.t_low) else f"{row.t_low:+.4f} to {row.t_high:+.4f}",
            "p": row.p,
            "p_holm": row.p_holm,
        }
        for row in each_row(pairwise)
    ]


def _runs(comparison: Comparison) -> list[dict[str, Any]]:
    runs = comparison.runs.runs
    rows = []
    for label, names in comparison.groups.items():
        for name in names:
            run: Any = runs.loc[name]
            folder = Path(run["path"])
            rows.append(
                {
                    "name": name,
                    "group": label,
                    "seed": int(run["seed"]),
                    "accuracy": run.get("average_accuracy"),
                    "seconds": run.get("seconds.total"),
                    "facts": {key: run[key] for key in _FACTS if key in run and pd.notna(run[key])},
                    "command": f"cl-powerprop run --config-dir {folder.as_posix()} --config-name config",
                    "config": (folder / "config.yaml").read_text(encoding="utf-8"),
                    "messages": run["messages"] if isinstance(run["messages"], list) else [],
                }
            )
    return rows
