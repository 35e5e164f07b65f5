"""Rows of a suite's table and its figure, from measurements that are made up."""

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl_powerprop.analysis.statistics import estimate
from cl_powerprop.analysis.tables import csv_bytes
from cl_powerprop.composition import compose
from cl_powerprop.errors import RunFolderError
from cl_powerprop.suites.definition import Method
from cl_powerprop.suites.figure import NAME, draw_figure, frontier
from cl_powerprop.suites.protocol import ANY_BUDGET, Entry
from cl_powerprop.suites.table import ESTIMATED, MEANS, Row, best_of_any_budget, needs, recorded_rows, table

CONFIG = compose(["strategy=naive", "data=digits"])


def row(
    name: str,
    validation: float | None,
    any_budget: bool = False,
    size: tuple[float, ...] = (1.0, 1.2),
    accuracy: tuple[float, ...] = (0.8, 0.9),
) -> Row:
    entry = Entry(name, f"{ANY_BUDGET}/{name}" if any_budget else name, Method(label=name, settings=(), space=()))
    values = {"average_accuracy": accuracy, "total_size": size, "seconds.total": accuracy}
    measured = {metric: estimate(values.get(metric, ())) for metric in (*ESTIMATED, *MEANS)}
    if validation is None:
        return Row(entry, {metric: estimate([]) for metric in measured}, reason="no trial is complete")
    return Row(
        entry, measured, 10.0, (1, 2), ("head", False, True), validation, (2, 1), {"optimizer.lr": "0.1"}, "seed 3: NaN"
    )


def test_the_better_budget_is_chosen_by_validation_data() -> None:
    rows = [row("a", 0.5), row("b", 0.9), row("c", None), row("a", 0.6, True), row("b", 0.8, True)]
    best = best_of_any_budget(rows)
    assert [(each.entry.name, each.entry.any_budget) for each in best] == [
        ("a", True),
        ("b", False),
        ("c", False),
    ]
    assert best_of_any_budget(rows[:3]) == []


def test_what_was_not_measured_is_empty() -> None:
    made = table([row("a", 0.5, size=()), row("b", None)])
    assert made["total_size"].isna().tolist() == [True, True]
    assert made["average_accuracy"].isna().tolist() == [False, True]
    assert made["wsn_capacity"].isna().all()
    assert made["average_accuracy"].tolist()[0] == pytest.approx(0.85)
    assert made["settings"].tolist() == ["optimizer.lr=0.1", ""]
    assert made["seeds"].tolist() == ["1 2", ""]


def test_a_row_comes_back_from_the_table_as_it_was(tmp_path: Path) -> None:
    made = [row("a", 0.5), row("b", None), row("a", 0.25, True, size=()), replace(row("c", None), refused=True)]
    file = tmp_path / "league.csv"
    file.write_bytes(csv_bytes(table(made)))
    back = recorded_rows(file, [each.entry for each in made])
    assert csv_bytes(table(back)) == file.read_bytes()
    assert [(each.entry, each.needs, each.seeds, each.settings, each.reason, each.refused) for each in back] == [
        (each.entry, each.needs, each.seeds, each.settings, each.reason, each.refused) for each in made
    ]
    assert [each.measured["total_size"].n for each in back] == [2, 0, 0, 0]
    draw_figure(back, "title", tmp_path)
    again = (tmp_path / f"{NAME}.svg").read_bytes()
    draw_figure(made, "title", tmp_path)
    assert (tmp_path / f"{NAME}.svg").read_bytes() == again
    (alone,) = recorded_rows(file, [made[2].entry])
    assert (alone.entry, alone.accuracy) == (made[2].entry, 0.25)
    assert recorded_rows(tmp_path / "none.csv", [made[0].entry]) == []


@pytest.mark.parametrize(
    "damage",
    [
        ("method,", "name,"),
        ("0.5", "half"),
        ("1 2", "one two"),
        ("optimizer.lr=0.1", "optimizer.lr"),
        ("False", "perhaps"),
        ("optimizer.lr=0.1", "optimizer.lr=\x1b[2J"),
        (",2,1,", ",2"),
    ],
)
def test_a_damaged_table_is_said_before_its_rows_are_lost(tmp_path: Path, damage: tuple[str, str]) -> None:
    file = tmp_path / "league.csv"
    text = csv_bytes(table([row("a", 0.5)])).decode()
    assert damage[0] in text
    file.write_text(text.replace(*damage), encoding="utf-8")
    with pytest.raises(RunFolderError, match="is damaged"):
        recorded_rows(file, [row("a", 0.5).entry])


@given(content=st.binary(max_size=400))
def test_any_bytes_are_a_table_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "league.csv"
        file.write_bytes(b"method,budget,seeds\n" + content)
        with contextlib.suppress(RunFolderError):
            assert recorded_rows(file, [row("a", 0.5).entry]) == []


INFERRED = ("benchmark.scenario=domain", "strategy.task_inference=entropy")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["strategy=epn"], ("weights", False, False)),
        (["strategy=packnet"], ("weights", False, True)),
        (["strategy=packnet", "strategy.shares=0.1"], ("weights", False, False)),
        (["strategy=naive"], ("head", False, False)),
        (["strategy=naive", "model.heads=shared"], ("", False, False)),
        (["strategy=epn", *INFERRED], ("100 of one task", False, False)),
        (["strategy=wsn", *INFERRED, "strategy.inference_batch=1"], ("", False, False)),
    ],
)
def test_what_a_method_needs(words: list[str], expected: tuple[str, bool, bool]) -> None:
    assert needs(compose(words)) == expected


def test_the_figure_shows_what_has_both_measurements(tmp_path: Path) -> None:
    files = draw_figure([row("first", 0.5), row("second", 0.5, size=()), row("third", 0.6, True)], "title", tmp_path)
    assert files == [f"{NAME}.png", f"{NAME}.svg"]
    text = (tmp_path / f"{NAME}.svg").read_text(encoding="utf-8")
    assert "first" in text
    assert "third, own budget" in text
    assert "second" not in text
    assert draw_figure([row("second", 0.5, size=())], "title", tmp_path) == []
    assert not (tmp_path / f"{NAME}.svg").exists(), "that of an earlier call is gone"


def test_the_frontier_has_what_no_other_method_beats() -> None:
    values = {"a": (0.3, 0.7), "b": (0.5, 0.9), "c": (0.5, 0.8), "d": (0.6, 0.9), "e": (2.0, 0.95), "f": (3.0, 0.1)}
    points = [(name, estimate((size,)), estimate((accuracy,))) for name, (size, accuracy) in values.items()]
    expected = [
        name
        for name, (size, accuracy) in values.items()
        if not any(x <= size and y >= accuracy and (x, y) != (size, accuracy) for x, y in values.values())
    ]
    assert [name for name, _, _ in frontier(points)] == expected == ["a", "b", "e"]


def test_what_is_near_the_frontier_has_a_panel_of_its_own(tmp_path: Path) -> None:
    rows = [row(str(index), 0.5, size=(index + 1.0,), accuracy=(0.9 + 0.01 * index,)) for index in range(4)]
    draw_figure(rows, "title", tmp_path)
    assert "near the frontier" not in (tmp_path / f"{NAME}.svg").read_text(encoding="utf-8")
    draw_figure([*rows, row("far below", 0.5, size=(2.0,), accuracy=(0.2,))], "title", tmp_path)
    assert "near the frontier" in (tmp_path / f"{NAME}.svg").read_text(encoding="utf-8")
