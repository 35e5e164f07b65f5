"""What is compared with what, the tables that come of it, and what a reader is warned of."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cl_powerprop.analysis import compare_runs, load_runs, pairwise_table, series, summary_table
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.tables import markdown, smallest_p
from cl_powerprop.errors import ConfigurationError, RunFolderError

from .folders import forgetful, write_run, write_sweep


def compared(path: Path, **options: object) -> Comparison:
    return compare_runs(load_runs(path), **options)  # type: ignore[arg-type]


def test_groups_are_strategies_over_seeds(tmp_path: Path) -> None:
    comparison = compared(write_sweep(tmp_path))
    assert comparison.groups == {name: [f"{name}-{seed}" for seed in range(3)] for name in ("epn", "naive", "packnet")}
    assert comparison.by == ["strategy"]
    assert comparison.warnings == []
    assert comparison.values("epn", "average_accuracy").tolist() == pytest.approx([0.9, 0.92, 0.94])


def test_what_varies_within_a_strategy_tells_groups_apart(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"one{seed}", "epn", seed, alpha=1.0, config={"optimizer.lr": 0.2})
        write_run(tmp_path / f"two{seed}", "epn", seed, alpha=2.0, config={"optimizer.lr": 0.5})
        write_run(tmp_path / f"naive{seed}", "naive", seed)
    comparison = compared(tmp_path)
    assert set(comparison.groups) == {"epn, alpha 1", "epn, alpha 2", "naive"}, "the rate follows alpha"
    write_run(tmp_path / "three", "epn", 0, alpha=2.0, config={"optimizer.lr": 0.1})
    assert set(compared(tmp_path).groups) == {
        *("epn, alpha 1, lr 0.2", "epn, alpha 2, lr 0.5", "epn, alpha 2, lr 0.1", "naive")
    }


def test_grouping_by_named_columns_tells_what_is_averaged(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, alpha=1.0)
    write_run(tmp_path / "b", "epn", 0, alpha=2.0)
    comparison = compared(tmp_path, by=["strategy"])
    assert list(comparison.groups) == ["epn"]
    assert any("differ in alpha (1, 2)" in line for line in comparison.warnings)
    with pytest.raises(ConfigurationError, match="did you mean alpha"):
        compared(tmp_path, by=["alfa"])
    with pytest.raises(ConfigurationError, match="did you mean average_accuracy"):
        compared(tmp_path, metrics=["average_acuracy"])


def test_runs_of_different_kinds_are_refused_unless_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, forgetful(3))
    write_run(tmp_path / "b", "epn", 0, forgetful(4))
    write_run(tmp_path / "c", "naive", 0, forgetful(3), record={"data": "mnist"})
    with pytest.raises(RunFolderError) as refused:
        compared(tmp_path)
    for part in ("not comparable", "n_tasks is 3 (2 runs) and 4 (1 run)", "data is mnist5k", "--allow-mixed"):
        assert part in str(refused.value)
    comparison = compared(tmp_path, allow_mixed=True)
    assert len(comparison.groups) == 3
    assert sum("not of one kind" in line for line in comparison.warnings) == 2


def test_unfinished_and_failed_runs_are_told_and_left_out(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    write_run(tmp_path / "x", "naive", 7, status="running", record={"trained_tasks": 1})
    write_run(tmp_path / "y", "naive", 8, status="failed", record={"error": "training diverged", "trained_tasks": 2})
    write_run(tmp_path / "z", "epn", 3, record={"diverged_tasks": [1, 2]})
    lines = compared(tmp_path).warnings
    assert "x: running after 1 of 3 tasks, left out" in lines
    assert "y: failed after 2 of 3 tasks (training diverged), left out" in lines
    assert any(line.startswith("z: no better than guessing on task(s) 1, 2") for line in lines)
    assert "naive: no run with seed 3" in lines
    assert "packnet: no run with seed 3" in lines


def test_a_repeated_run_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "first", "epn", 0, forgetful(3, 0))
    write_run(tmp_path / "later", "epn", 0, forgetful(3, 1), record={"finished": "2026-02-01T00:00:00+00:00"})
    comparison = compared(tmp_path)
    assert comparison.groups == {"epn": ["later"]}
    assert "first" in comparison.warnings[0]


def test_nothing_complete(tmp_path: Path) -> None:
    write_run(tmp_path / "x", status="failed", record={"error": "loss is nan"})
    with pytest.raises(RunFolderError, match=r"none of 1 runs is complete: x: failed .* \(loss is nan\)"):
        compared(tmp_path)


def test_the_summary_is_numeric(tmp_path: Path) -> None:
    table = summary_table(compared(write_sweep(tmp_path)))
    numbers = table[["n", "mean", "std", "t_low", "t_high", "bootstrap_low", "bootstrap_high"]]
    assert all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes)
    row = table[(table["group"] == "epn") & (table["metric"] == "average_accuracy")].iloc[0]
    assert (row["n"], row["mean"], row["std"]) == (3, pytest.approx(0.92), pytest.approx(0.02))
    assert row["seeds"] == "0 1 2"
    assert "forward_transfer" not in set(table["metric"]), "no run has it"


def test_pairs_are_over_the_same_seeds(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    write_run(tmp_path / "extra", "epn", 3, forgetful(3, 9, 0.0), masked=True, alpha=2.0)
    table = pairwise_table(compared(tmp_path))
    assert len(table[table["metric"] == "average_accuracy"]) == 3
    pair = table[(table["metric"] == "average_accuracy") & (table["a"] == "epn") & (table["b"] == "packnet")].iloc[0]
    assert (pair["n"], pair["seeds"]) == (3, "0 1 2")
    assert pair["mean"] == pytest.approx((0.0 + 0.01 + 0.02) / 3)
    assert pair["p"] == pytest.approx(0.5), "one of three is 0: four of eight flips reach the sum"
    assert pair["p_holm"] >= pair["p"]
    only = pairwise_table(compared(tmp_path), "naive")
    assert set(only["b"]) == {"naive"}
    assert set(only["a"]) == {"epn", "packnet"}
    with pytest.raises(ConfigurationError, match="choose from: epn, "):
        pairwise_table(compared(tmp_path), "ewc")


def test_markdown_says_what_was_compared(tmp_path: Path) -> None:
    comparison = compared(write_sweep(tmp_path))
    text = markdown(comparison, summary_table(comparison), pairwise_table(comparison))
    assert "permuted_mnist on mnist5k, 3 tasks, scenario task; 9 runs in 3 groups" in text
    assert "| epn | 3 | 0.9200 ± 0.0497 | 0.0000 ± 0.0000 |" in text
    assert "30.0 ± 0.0 %" in text
    assert "smallest p that a pair can have is 0.25" in text
    assert smallest_p(pairwise_table(comparison)).endswith("it takes 6.")


def test_forgetting_curves_by_hand(tmp_path: Path) -> None:
    comparison = compared(write_sweep(tmp_path))
    curves = series.forgetting_curves(comparison)
    first = curves[(curves["group"] == "naive") & (curves["task"] == "0")]
    assert first["progress"].tolist() == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0], "also within tasks"
    assert first["mean"].tolist() == pytest.approx([0.091, 0.91, 0.081, 0.81, 0.071, 0.71])
    half = 4.302653 * 0.01 / 3**0.5
    assert (first["high"] - first["mean"]).iloc[1] == pytest.approx(half, rel=1e-4)
    second = curves[(curves["group"] == "naive") & (curves["task"] == "1")]
    assert second["progress"].tolist() == [1.5, 2.0, 2.5, 3.0], "from its own training on"
    average = curves[(curves["group"] == "naive") & (curves["task"] == series.AVERAGE)]
    assert average["progress"].tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert average["mean"].tolist() == pytest.approx([0.91, 0.081, 0.86, 0.076, 0.81])


def test_an_average_needs_all_tasks(tmp_path: Path) -> None:
    """Where only the last row tests all tasks, the average has no earlier point, however the matrix looks."""
    matrix = forgetful()
    matrix[1, 0] = np.nan
    curves = series.forgetting_curves(compared(write_run(tmp_path / "run", matrix=matrix)))
    assert curves[curves["task"] == series.AVERAGE]["progress"].tolist() == [1.0, 3.0]


def test_curves_without_curves_csv_come_from_the_matrix(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "curves.csv").unlink()
    curves = series.forgetting_curves(compared(run))
    assert curves[curves["task"] == "0"]["mean"].tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_masks_by_hand(tmp_path: Path) -> None:
    comparison = compared(write_sweep(tmp_path))
    growth = series.capacity_growth(comparison)
    assert growth[growth["group"] == "epn"]["mean"].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert "naive" not in set(growth["group"])
    made = series.mask_composition(comparison)
    last = made[(made["group"] == "epn") & (made["task"] == 2)]
    assert dict(zip(last["source"], last["share"], strict=True)) == pytest.approx({0: 0.1, 1: 0.1, 2: 0.1})
    overlap = series.mask_overlaps(comparison)["epn"]
    assert overlap == pytest.approx(np.array([[1, 1 / 2, 1 / 3], [1 / 2, 1, 2 / 3], [1 / 3, 2 / 3, 1]]))
    sizes = series.weight_sizes(comparison)
    assert sizes.groupby("group")["share"].sum().tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert set(sizes["low"]) == {0.1}, "free weights do not count"


def test_accuracy_matrices_are_means_over_seeds(tmp_path: Path) -> None:
    matrix = series.accuracy_matrices(compared(write_sweep(tmp_path)))["naive"]
    assert np.allclose(matrix, forgetful(seed=1), equal_nan=True)
    assert list(matrix.columns) == ["permutation_0", "permutation_1", "permutation_2"]


def test_groups_without_a_seed_in_common(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "naive", 0)
    write_run(tmp_path / "b", "epn", 1, masked=True)
    comparison = compared(tmp_path)
    table = pairwise_table(comparison)
    assert table["n"].eq(0).all()
    assert table[["mean", "p", "p_holm"]].isna().all(axis=None)
    text = markdown(comparison, summary_table(comparison), table)
    assert "nan" not in text
    assert "No pair has two seeds in common" in text


def test_the_smallest_p_is_that_of_the_pairs(tmp_path: Path) -> None:
    for seed in range(8):
        write_run(tmp_path / f"a{seed}", "naive", seed)
        write_run(tmp_path / f"b{seed}", "epn", seed, masked=True)
    write_run(tmp_path / "c", "packnet", 0, masked=True)
    told = smallest_p(pairwise_table(compared(tmp_path)))
    assert told == "With 1 to 8 seeds in common the smallest p that a pair can have is 0.00781."


def test_one_run_given_in_two_ways_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sweep(tmp_path / "sweep")
    (tmp_path / "sweep" / "loop").symlink_to(tmp_path / "sweep", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    comparison = compare_runs(load_runs(["sweep", tmp_path / "sweep"]))
    assert len(comparison.runs.runs) == 9
    curves = series.forgetting_curves(comparison)
    assert set(curves["n"]) == {3}


def test_values_that_look_alike_stay_apart(tmp_path: Path) -> None:
    for place, lr in enumerate((0.1234561, 0.1234564)):
        for seed in (0, 1):
            write_run(tmp_path / f"{place}{seed}", "naive", seed, config={"optimizer.lr": lr})
    groups = compared(tmp_path).groups
    assert sorted(map(len, groups.values())) == [2, 2]


def test_strategies_averaged_together_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "naive", 0)
    write_run(tmp_path / "b", "epn", 0)
    assert any("differ in strategy (epn, naive)" in line for line in compared(tmp_path, by=["alpha"]).warnings)


def test_a_repeat_that_knows_less_is_the_one_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "within", "epn", 0, record={"finished": "2026-01-01T00:00:00+00:00"})
    content = json.loads((tmp_path / "within" / "run.json").read_text())
    content["metrics"]["min_accuracy"] = 0.5
    (tmp_path / "within" / "run.json").write_text(json.dumps(content))
    write_run(tmp_path / "plain", "epn", 0, record={"finished": "2026-02-01T00:00:00+00:00"})
    assert compared(tmp_path).groups == {"epn": ["within"]}


def test_tasks_under_different_names_are_numbered(tmp_path: Path) -> None:
    for seed, name in ((0, "Greek"), (1, "Latin")):
        run = write_run(tmp_path / name, "epn", seed, forgetful(2))
        text = (run / "accuracy_matrix.csv").read_text()
        (run / "accuracy_matrix.csv").write_text(text.replace("permutation_0", name))
    assert list(series.accuracy_matrices(compared(tmp_path))["epn"].columns) == ["task 0", "permutation_1"]


def test_the_share_of_weights_is_over_the_runs_that_have_it(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    (tmp_path / "epn-0" / "weights.csv").unlink()
    sizes = series.weight_sizes(compared(tmp_path))
    assert sizes.groupby("group")["share"].sum().tolist() == pytest.approx([1.0, 1.0, 1.0])
