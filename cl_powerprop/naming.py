"""How runs, and groups of runs, are named: by the settings in which they differ.

Everything that shows several runs uses these names: the table of a multirun, its progress bars and lines, comparisons,
reports and dashboards. A run is a *row* here: its settings by dotted key (``optimizer.lr``), and under ``strategy``,
``model``, ``optimizer``, ``data`` and ``benchmark`` the names of its parts.
"""

import json
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]

# Settings that do not change what is measured.
_WITHOUT_EFFECT = ("train.threads", "train.eval_batch_size", "data.root", "data.download")
_NOT_SETTINGS = ("seconds.", "evaluation.", "logger.", "run.", "checkpoint.")
SPARSE_TRAINING = ("controller", "target_sparsity")  # facts of a run that trains sparsely, null for others
# The first choice for naming a group, where settings vary together.
_PREFERRED = (*SPARSE_TRAINING, "alpha", "model", "optimizer")
# "adam", not "optimizer adam".
_NAMED_BY_VALUE = ("strategy", "controller", "sparsity", "benchmark", "data", "model", "optimizer", "experiment")
_PARTS = ("strategy", "benchmark", "data", "model", "optimizer")  # groups of options, each of which has its own ones
_NAMES = {"sparsity": "controller"}  # of the part that has these options, where it is not under the group's own name
_HEADINGS = {"target_sparsity": "target"}
DENSE = "dense"  # what has no controller
_ALWAYS = ("strategy", "benchmark", "data", "scenario", "n_tasks")  # a label has these, if it is asked for them
_MOST_VALUES = 5  # of a setting that a line lists
_DIGITS = (6, 9)  # significant ones of a number
_ALL = 17  # as many as tell all numbers apart


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for all options of a nested config; lists become text, so that they can be compared."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value) if isinstance(value, list | tuple) else value


def settings(columns: Collection[str]) -> list[str]:
    """Return the columns that can change what a run measures, its strategy and seed apart, in the order of names."""
    dotted = [name for name in columns if "." in name and not name.startswith(_NOT_SETTINGS)]
    facts = {"alpha": "model.alpha", "target_sparsity": "sparsity.target"}  # of every run folder
    left_out = (*_WITHOUT_EFFECT, *(option for fact, option in facts.items() if fact in columns))
    named = [name for name in dotted if name not in left_out and not name.endswith(".name")]
    return [*(name for name in _PREFERRED if name in columns), *named]


def varying(rows: Sequence[Row], columns: Sequence[str], within: str | None = "strategy") -> list[str]:
    """Return the columns in which the rows differ; with ``within``, rows that are alike in that column."""
    kinds: dict[Hashable, list[Row]] = {}
    for row in rows:
        kinds.setdefault(_key(row, within) if within else None, []).append(row)
    return [
        column for column in columns if any(len({_key(row, column) for row in alike}) > 1 for alike in kinds.values())
    ]


def differing(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Return the columns in which the rows differ; an option that only some strategies, say, have is no difference."""
    return [column for column in columns if _differ(rows, column)]


def _differ(rows: Sequence[Row], column: str) -> bool:
    part = _part_of(column)
    if part is None:
        return len({_key(row, column) for row in rows}) > 1
    return len({_key(row, column) for row in rows} - {None}) > 1 or bool(varying(rows, [column], part))


def _part_of(column: str) -> str | None:
    """Return the column that says which part's option this is; None for a setting of every run."""
    group, dot, _ = column.partition(".")
    return _NAMES.get(group, group) if dot and group in (*_PARTS, *_NAMES) else None


def unlabelled(rows: Sequence[Row], columns: Sequence[str], by: Sequence[str]) -> dict[str, str]:
    """Return those of the columns in which the rows differ and which some labels by ``by`` do not tell, with values."""
    shown = _shown(rows, by)

    def hidden(row: Row, column: str) -> bool:
        has_it = _part_of(column) is None or _key(row, column) is not None
        return has_it and column not in shown[_kind(row, by)]

    return {
        column: different_values(rows, column)
        for column in differing(rows, columns)
        if any(hidden(row, column) for row in rows)
    }


def different_values(rows: Sequence[Row], column: str) -> str:
    """Return the values of a column as text, as in "0.1, 0.5"; of many, how many there are."""
    keys = {_key(row, column): row for row in rows}
    present = [row[column] for key, row in keys.items() if key is not None]
    numbers = all(isinstance(value, int | float) for value in present)
    ordered = sorted(present) if numbers else sorted(present, key=str)
    digits = _digits(rows, column)
    if len(keys) <= _MOST_VALUES:
        null = ["null"] if None in keys and _part_of(column) is None else []
        return ", ".join([*(text(value, digits) for value in ordered), *null])
    return f"{len(keys)} values" + (f" from {text(ordered[0])} to {text(ordered[-1])}" if numbers else "")


def distinguishing(rows: Sequence[Row], columns: Sequence[str], base: Sequence[str] = ("strategy",)) -> list[str]:
    """Return as few columns as tell apart all rows of a strategy that differ in any, besides the base columns.

    Args:
        rows: one for each run.
        columns: what to choose from, in the order of preference.
        base: columns that are named in any case.
    """
    candidates = varying(rows, [column for column in columns if column not in base])
    target = _kinds(rows, [*base, *candidates])
    chosen: list[str] = []
    reached = _kinds(rows, base)
    for column in candidates:
        if reached == target:
            break
        with_it = _kinds(rows, [*base, *chosen, column])
        if with_it > reached:
            chosen.append(column)
            reached = with_it
    return chosen


def _kinds(rows: Sequence[Row], columns: Sequence[str]) -> int:
    return len({tuple(_key(row, column) for column in columns) for row in rows})


def _key(row: Row, column: str | None) -> Hashable:
    """Return a value that can be compared; None where there is none."""
    value = row.get(column) if column else None
    if value is None or value != value:
        return None
    return value if isinstance(value, Hashable) else repr(value)


def labels(rows: Mapping[str, Row], columns: Sequence[str]) -> dict[str, str]:
    """Return the label of each row's group, as in "epn, alpha 2, lr 0.1", by the row's name.

    Rows that are alike in all columns have the same label, others another one. A column that does not vary among the
    runs of a strategy is left out, unless it says what is learned: benchmark, data, scenario and number of tasks. The
    strategy is left out of runs that differ in their controller, and not in the strategy.
    """
    shown = _shown(list(rows.values()), columns)
    digits = {column: _digits(list(rows.values()), column) for column in columns}
    found: dict[tuple[Hashable, ...], str] = {}
    for row in rows.values():
        key = tuple(_key(row, column) for column in columns)
        if key not in found:
            named = [column for column in _applicable(row, columns) if column in shown[_kind(row, columns)]]
            written = ", ".join(_part(row, column, columns, digits[column]) for column in named) or "all runs"
            taken = written in found.values()  # as by the number 1 and the text "1"
            found[key] = f"{written} ({', '.join(map(repr, key))})" if taken else written
    return {name: found[tuple(_key(row, column) for column in columns)] for name, row in rows.items()}


def _applicable(row: Row, columns: Sequence[str]) -> list[str]:
    """Return the columns without the target sparsity of a run without a controller, which says that it is dense."""
    dense = "controller" in columns and _key(row, "controller") is None
    return [column for column in columns if not (dense and column == "target_sparsity")]


def _shown(rows: Sequence[Row], columns: Sequence[str]) -> dict[Hashable, set[str]]:
    """Return which of the columns the labels have, for each strategy."""
    kinds: dict[Hashable, list[Row]] = {}
    for row in rows:
        kinds.setdefault(_kind(row, columns), []).append(row)
    always = {column for column in columns if column in _ALWAYS or column.startswith(("benchmark.", "data."))}
    if "controller" in columns and len(kinds) == 1:
        always -= {"strategy"}  # what runs are compared by is how sparse they are
    return {kind: always | set(varying(alike, columns, None)) for kind, alike in kinds.items()}


def _kind(row: Row, columns: Sequence[str]) -> Hashable:
    return _key(row, "strategy") if "strategy" in columns else None


def _digits(rows: Sequence[Row], column: str) -> int:
    """Return how many significant digits tell the values of a column apart."""
    numbers = {value for row in rows if isinstance(value := _key(row, column), float)}
    return next((digits for digits in _DIGITS if len({text(each, digits) for each in numbers}) == len(numbers)), _ALL)


def run_names(rows: Sequence[Row]) -> list[str]:
    """Return each run's name among some runs: the label of its group, as a comparison would call it, and the seed."""
    known = list(dict.fromkeys(column for row in rows for column in row))
    base = [*varying(rows, ["benchmark", "data"], None), "strategy"]
    columns = [*base, *distinguishing(rows, settings(known), base)]
    found = labels({str(index): row for index, row in enumerate(rows)}, columns)
    return [f"{found[str(index)]}, seed {row.get('seed')}" for index, row in enumerate(rows)]


def label(row: Row, columns: Sequence[str]) -> str:
    """Return the name of one run by its strategy and some settings, as in "epn, alpha 2, lr 0.1"."""
    first = ["strategy"] if "strategy" in row else []
    named = [*first, *(column for column in columns if column not in ("strategy", "seed"))]
    return ", ".join(_part(row, column, named, _ALL) for column in named)


def job_name(row: Row, overrides: Mapping[str, str], swept: Collection[str], seeds: int = 1) -> str:
    """Return the name of a job of a multirun: its strategy, the value of each option that is swept, and its seeds.

    Where recipes are swept (`experiment=a,b`) and no strategies, the recipe stands for the strategy.

    Args:
        row: the job's settings.
        overrides: the job's overrides, value by key.
        swept: the keys of those that other jobs have with another value.
        seeds: how many it trains together, of which the row has the first.
    """
    named = {**overrides, **row}
    columns = [key for key in overrides if key in swept]
    if "experiment" in columns and "strategy" not in columns:
        columns.remove("experiment")
        named["strategy"] = overrides["experiment"]
    name, first = label(named, columns), row["seed"]
    return f"{name}, seed {first}" if seeds == 1 else f"{name}, seeds {first} to {first + seeds - 1}"


def against(row: Row, default: Row) -> str:
    """Return the name of one run by its strategy, and the settings that have another value than in ``default``."""
    columns = ["benchmark", "data", *settings(list(row))]
    return label(row, [column for column in columns if _key(row, column) != _key(default, column)])


def values(row: Row, columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return a row's cells in a table of some rows; "-" where there is no value."""
    return ["-" if _key(row, column) is None else text(row[column], _digits(rows, column)) for column in columns]


def _part(row: Row, column: str, among: Sequence[str], digits: int) -> str:
    """Return one setting of a label, as in "lr 0.1"; the name of a part stands alone."""
    if column in SPARSE_TRAINING and _key(row, column) is None:
        return DENSE
    value = "null" if _key(row, column) is None else text(row[column], digits)
    return value if column in _NAMED_BY_VALUE else f"{heading(column, among)} {value}"


def heading(column: str, among: Sequence[str]) -> str:
    """Return a column's name: its last part, unless that of another column is the same."""
    last = _HEADINGS.get(column, column.rpartition(".")[2])
    alike = [other for other in among if other.rpartition(".")[2] == last]
    return last if len(alike) < 2 else column


def text(value: object, digits: int = _DIGITS[0]) -> str:
    """Return a setting's value as text: 2 for 2.0, [20, 20] for a list."""
    if isinstance(value, float):
        return repr(float(value)).removesuffix(".0") if digits == _ALL else f"{value:.{digits}g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
