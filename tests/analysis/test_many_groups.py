"""A comparison of very many groups: linear, with figures of the best, tables of all, and a line that says so."""

from pathlib import Path

import pandas as pd
import pytest

from cl_powerprop.analysis import compare_runs, load_runs, pairwise_table, summary_table
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.notes import MOST_DRAWN, notes
from cl_powerprop.analysis.tables import MOST_PAIRED

from .folders import forgetful, write_run


def many(root: Path, groups: int, seeds: int = 1) -> Comparison:
    """Write and compare runs of many learning rates; the one in the middle is the best."""
    for group in range(groups):
        for seed in range(seeds):
            worse = abs(group - groups // 2) / groups
            matrix = forgetful(2, drop=0.0) * (1 - worse / 2) - 0.01 * seed
            write_run(root / f"{group}-{seed}", "epn", seed, matrix, config={"optimizer.lr": (group + 1) / 1000})
    return compare_runs(load_runs(root))


def test_the_best_groups_are_drawn_in_their_order(tmp_path: Path) -> None:
    comparison = many(tmp_path, 30, 2)
    drawn = comparison.best(5)
    assert list(drawn.groups) == [f"epn, lr {lr}" for lr in (0.014, 0.015, 0.016, 0.017, 0.018)]
    assert comparison.ranked()[0] == "epn, lr 0.016"
    assert set(drawn.runs.curves["run"]) == {name for names in drawn.groups.values() for name in names}
    assert "epn, lr 0.001" in comparison.best(5, keep="epn, lr 0.001").groups
    assert len(comparison.best(5, keep="epn, lr 0.001").groups) == 5
    assert comparison.best(30) is comparison


def test_the_first_chosen_metric_says_which_groups_are_the_best(tmp_path: Path) -> None:
    for group in range(3):
        write_run(tmp_path / str(group), f"s{group}", 0, metrics={"mask_bits": 5.0 - group, "dense_weights": 1.0})
    loaded = load_runs(tmp_path)
    assert list(compare_runs(loaded, metrics=["dense weights", "bits of masks"]).best(1).groups) == ["s2"]
    assert list(compare_runs(loaded, metrics=["dense weights"]).best(1).groups) == ["s0"], "neither way is better"


def test_many_groups_are_compared_with_the_best_only(tmp_path: Path) -> None:
    comparison = many(tmp_path, MOST_PAIRED + 1)
    pairs = pairwise_table(comparison)
    assert len(pairs) == MOST_PAIRED * len(comparison.headline)
    (best,) = set(pairs["b"])
    assert best == comparison.ranked()[0]
    assert len(pairwise_table(comparison.best(MOST_PAIRED))) == MOST_PAIRED * (MOST_PAIRED - 1) / 2 * len(
        comparison.headline
    )
    drawn, tested = notes(comparison)
    assert drawn.startswith(f"figures show the {MOST_DRAWN} best of {MOST_PAIRED + 1} groups by average accuracy;")
    assert repr(best) in tested
    assert notes(comparison, "epn, lr 0.001") == [drawn]
    assert notes(comparison.best(MOST_DRAWN)) == []
    assert len(summary_table(comparison)["group"].unique()) == MOST_PAIRED + 1


def test_warnings_about_many_groups_are_a_few_lines(tmp_path: Path) -> None:
    for group in range(40):
        write_run(tmp_path / f"{group}", f"s{group}", 0)
    write_run(tmp_path / "more", "s0", 1)
    (line,) = compare_runs(load_runs(tmp_path)).warnings
    assert line == "39 groups have no run with seed 1: s1; s2; s3; and 36 more"


@pytest.mark.slow
def test_the_work_is_linear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the groups take at most four times the comparisons of rows: counted, because times vary."""
    calls: list[int] = []
    select = pd.DataFrame.__getitem__

    def counted(frame: pd.DataFrame, key: object) -> object:
        calls.append(len(frame))
        return select(frame, key)  # type: ignore[call-overload]

    work = []
    for groups in (40, 160):
        comparison = many(tmp_path / str(groups), groups)
        with monkeypatch.context() as patch:
            patch.setattr(pd.DataFrame, "__getitem__", counted)
            calls.clear()
            summary_table(comparison), pairwise_table(comparison)
        work.append(sum(calls))
    assert work[1] < 5 * work[0]
