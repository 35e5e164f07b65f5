"""What a comparison says of zero forgetting, and of tasks that were confused and not forgotten."""

from collections.abc import Mapping

import pandas as pd

from cl_powerprop.analysis.comparison import Comparison

NONE = "-"  # in a table, where there is no value
TITLE = "zero forgetting"  # of the column
CONFUSED = ", but tasks confused"
VERIFIED = "verified to the bit"
_MOST_NAMED = 5  # groups that a note names


def zero_forgetting(comparison: Comparison) -> dict[str, tuple[str, float]]:
    """Return for each group whether the logits of every task stayed the same bit for bit: a text, and a number.

    The number is the share of the runs of which that is verified; NaN where none was tested.
    """
    verdicts = comparison.runs.runs["zero_forgetting_verified"].map(str)
    confused = confused_groups(comparison)
    found = {}
    for label, names in comparison.groups.items():
        verified, tested = int((verdicts[names] == "True").sum()), int(verdicts[names].isin(("True", "False")).sum())
        if verified == len(names):
            text = VERIFIED
        elif verified:
            text = f"in {verified} of {len(names)} runs"
        else:
            text = "no" if tested else NONE
        found[label] = (text + CONFUSED * (label in confused), verified / len(names) if tested else float("nan"))
    return found


def confused_groups(comparison: Comparison) -> dict[str, float]:
    """Return the share of test samples whose task was inferred rightly, of groups that confused tasks.

    No logit of any run of such a group changed, but some tasks were inferred wrongly.
    """
    runs = comparison.runs.runs
    shares = _identified(comparison)
    verified = runs["zero_forgetting_verified"].map(str) == "True"
    return {
        label: float(shares[names].mean())
        for label, names in comparison.groups.items()
        if verified[names].all() and (shares[names] < 1.0).any()
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


def fall_of_a_curve(comparison: Comparison) -> str:
    """Return what it means that the accuracy on a task falls after its training."""
    if len(confused_groups(comparison)) == len(comparison.groups):
        return "another task was inferred, and none was forgotten"
    inferred = " or, where tasks are inferred, another one was" if (_identified(comparison) < 1.0).any() else ""
    return f"the task is being forgotten{inferred}"


def _identified(comparison: Comparison) -> "pd.Series[float]":
    """Return the share of the test samples whose task was inferred rightly, of each run; NaN without inference."""
    runs = comparison.runs.runs
    if "task_identification" not in runs:
        return pd.Series(float("nan"), index=runs.index)
    return pd.to_numeric(runs["task_identification"], errors="coerce")
