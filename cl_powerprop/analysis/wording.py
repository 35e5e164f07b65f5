"""What titles and captions of figures say, in a form that fits the runs and the space."""

import html
import textwrap

from cl_powerprop.analysis import series
from cl_powerprop.analysis.comparison import Comparison

_POINTS_AN_INCH = 72
_LONGEST = 300  # characters of a text in the report's figures
_NO_BREAK = "\N{NO-BREAK SPACE}"
_MOST_LINES = 8  # of a text in a figure
_CHARACTER = 0.56  # mean width of a character as a share of the font size, on the safe side


def repeated(comparison: Comparison) -> bool:
    """Whether some group has more than one seed, so that there are means and intervals to speak of."""
    seeds = comparison.runs.runs["seed"]
    return any(seeds.loc[names].nunique() > 1 for names in comparison.groups.values())


def over_seeds(comparison: Comparison) -> str:
    """Return ", mean over seeds", or nothing if each group is a single run."""
    return ", mean over seeds" if repeated(comparison) else ""


def with_intervals(comparison: Comparison, what: str) -> str:
    """Return what a title says of the intervals, if there are any."""
    return f" ({what}: 95 % t-interval)" if repeated(comparison) else ""


def all_task_labels(comparison: Comparison) -> list[str]:
    """Return "task 3: name" for each task, or "task 3" where groups differ in the name."""
    tasks = int(comparison.runs.runs["n_tasks"].max())
    return series.task_labels(series.task_names(comparison.runs.accuracy, tasks))


def axis_names(labels: list[str], characters: int = 16) -> list[str]:
    """Return short texts for the ticks of an axis of tasks: their names, or the numbers of those without one."""
    return [shortened(text.partition(": ")[2] or str(task), characters) for task, text in enumerate(labels)]


def first_of(shown: int, count: int, what: str) -> str:
    """Return a note for a title if not all are shown: " (the first 12 of 40 groups)"."""
    return f" (the first {shown} of {count} {what})" if shown < count else ""


def wrap(text: str, inches: float, size: float) -> str:
    """Return the text in lines that fit into this width at this font size, in points; of a long one, the beginning.

    No line ends between a number and its "%".
    """
    width = max(8, int(inches * _POINTS_AN_INCH / (_CHARACTER * size)))
    joined = text.replace(" %", f"{_NO_BREAK}%")
    filled = textwrap.fill(joined, width, max_lines=_MOST_LINES, placeholder="…")
    return filled.replace(_NO_BREAK, " ")


def plotly_text(text: str, characters: int | None = None) -> str:
    """Return the text for Plotly, which reads some HTML; in lines of up to this many characters, if given.

    A ``%{`` would be replaced by a value, with its HTML.
    """
    text = shortened(text, _LONGEST)
    lines = [text] if characters is None else textwrap.wrap(text, characters)
    return "<br>".join(html.escape(line, quote=False).replace("%{", "%&#123;") for line in lines)


def shortened(text: str, characters: int) -> str:
    """Return the text, cut to this many characters."""
    return text if len(text) <= characters else text[: characters - 1] + "…"
