"""What a reader of a comparison should know of its tables and figures: one line each, below the table."""

from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.sparsity_series import is_sparse
from cl_powerprop.analysis.tables import MOST_PAIRED
from cl_powerprop.analysis.verdicts import confused_groups, confusion_note

MOST_DRAWN = 20  # groups that figures show: more lines cannot be told apart


def notes(comparison: Comparison, baseline: str | None = None) -> list[str]:
    """Return what holds of these groups, of which those beyond the limits are neither drawn nor tested in all pairs.

    Args:
        comparison: the groups.
        baseline: the group with which the others are compared, if one was named.
    """
    confused = confused_groups(comparison)
    lines = [confusion_note(confused)] if confused else []
    # A difference in training is a warning.
    hidden = {column: text for column, text in comparison.unlabelled.items() if not column.startswith("train.")}
    if hidden:
        listed = ", ".join(f"{column} ({text})" for column, text in hidden.items())
        lines.append(f"not all labels say that groups differ in {listed}; summary.csv has each group's")
    count = len(comparison.groups)
    if count > MOST_DRAWN:
        metric = comparison.decisive
        chosen = f"{MOST_DRAWN} best of {count} groups by {metric.label}" if metric else f"first {MOST_DRAWN} groups"
        everywhere = ", and so have the figures of accuracy against density and FLOPs" if is_sparse(comparison) else ""
        lines.append(f"figures show the {chosen}; tables have all{everywhere}")
    if count > MOST_PAIRED and baseline is None:
        lines.append(
            f"{count} groups have too many pairs: each is compared with the best one, {comparison.ranked()[0]!r}; as "
            "the same runs made it the best, p is too small. --baseline names another one"
        )
    return lines
