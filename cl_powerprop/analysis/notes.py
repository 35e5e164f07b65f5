"""What a reader of a comparison should know of its tables and figures: one line each, below the table."""

from collections.abc import Mapping

import pandas as pd

from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.tables import MOST_PAIRED

MOST_DRAWN = 20  # groups that figures show: more lines cannot be told apart
_MOST_NAMED = 5  # groups that a note names


def notes(comparison: Comparison, baseline: str | None = None) -> list[str]:
    """Return what holds of these groups, of which those beyond the limits are neither drawn nor tested in all pairs.

    Args:
        comparison: the groups.
        baseline: the group with which the others are compared, if one was named.
    """
    confused = confused_groups(comparison)
    lines = [confusion_note(confused)] if confused else []
    count = len(comparison.groups)
    if count > MOST_DRAWN:
        metric = comparison.decisive
        chosen = f"{MOST_DRAWN} best of {count} groups by {metric.label}" if metric else f"first {MOST_DRAWN} groups"
        lines.append(f"figures show the {chosen}; tables have all")
    if count > MOST_PAIRED and baseline is None:
        lines.append(
            f"{count} groups have too many pairs: each is compared with the best one, {comparison.ranked()[0]!r}; as "
            "the same runs made it the best, p is too small. --baseline names another one"
        )
    return lines


def confused_groups(comparison: Comparison) -> dict[str, float]:
    """Return the share of test samples whose task was inferred rightly, of groups that confused tasks."""
    runs = comparison.runs.runs
    if "task_identification" not in runs:
        return {}
    shares = pd.to_numeric(runs["task_identification"], errors="coerce")
    # No logit changed, but some tasks were inferred wrongly.
    confused = shares[(shares < 1.0) & (runs["zero_forgetting_verified"].map(str) == "True")]
    return {
        str(label): float(values.mean())
        for label, values in confused.groupby(confused.index.map(comparison.group_of), sort=False)
    }


def confusion_note(identified: Mapping[str, float] | None = None) -> str:
    """Return a line that explains how tasks are confused and not forgotten.

    Args:
        identified: the groups that it is about, with the share of the test samples whose task was inferred rightly.
    """
    named = [
        f"{label} ({100 * share:.1f} % of the test samples identified)" for label, share in (identified or {}).items()
    ]
    rest = f"; and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    where = f" in {'; '.join(named[:_MOST_NAMED])}{rest}" if named else ""
    return (
        f"tasks were confused, not forgotten{where}: each task's logits are, to the bit, what they were when it was "
        "learned; where accuracy fell, another task was inferred"
    )
