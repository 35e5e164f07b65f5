"""Comparing runs: groups, metrics, tables, the numbers behind the figures, and warnings."""

import html
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cl_powerprop.analysis import compare_runs, load_runs, pairwise_table, series, summary_table
from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.tables import best_groups, markdown, smallest_p
from cl_powerprop.analysis.verdicts import confused_groups, fall_of_a_curve, zero_forgetting
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.evaluation.metrics import find_metric
from cl_powerprop.registry import metrics

from .folders import forgetful, write_run, write_sweep


def compared(path: Path, **options: object) -> Comparison:
    return compare_runs(load_runs(path), **options)  # type: ignore[arg-type]


def test_groups_are_strategies_over_seeds(tmp_path: Path) -> None:
    comparison = compared(write_sweep(tmp_path))
    assert comparison.groups == {name: [f"{name}-{seed}" for seed in range(3)] for name in ("epn", "naive", "packnet")}
    assert comparison.by == ["strategy"]
    assert comparison.warnings == []
    assert comparison.values("epn", "average_accuracy").tolist() == pytest.approx([0.9, 0.92, 0.94])


def test_settings_that_vary_within_a_strategy_distinguish_groups(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"one{seed}", "epn", seed, alpha=1.0, config={"optimizer.lr": 0.2})
        write_run(tmp_path / f"two{seed}", "epn", seed, alpha=2.0, config={"optimizer.lr": 0.5})
        write_run(tmp_path / f"naive{seed}", "naive", seed)
    comparison = compared(tmp_path)
    assert set(comparison.groups) == {"epn, alpha 1", "epn, alpha 2", "naive"}, "the learning rate varies with alpha"
    write_run(tmp_path / "three", "epn", 0, alpha=2.0, config={"optimizer.lr": 0.1})
    assert set(compared(tmp_path).groups) == {
        *("epn, alpha 1, lr 0.2", "epn, alpha 2, lr 0.5", "epn, alpha 2, lr 0.1", "naive")
    }


def test_settings_that_no_label_tells_are_in_a_note_and_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "a", "epn", 0, alpha=1.0, config={"optimizer.lr": 0.1})
    write_run(tmp_path / "b", "epn", 0, alpha=2.0, config={"optimizer.lr": 0.5})
    write_run(tmp_path / "c", "naive", 0, config={"optimizer.lr": 0.3})
    write_run(tmp_path / "d", "naive", 1, config={"optimizer.lr": 0.3})
    comparison = compare([tmp_path], tmp_path / "out").comparison
    assert list(comparison.groups) == ["epn, alpha 1", "epn, alpha 2", "naive"]
    line = "not all labels say that groups differ in alpha (1, 2), optimizer.lr (0.1, 0.3, 0.5)"
    assert line in capsys.readouterr().out
    assert line in (tmp_path / "out" / "summary.md").read_text()
    assert line in (tmp_path / "out" / "report.html").read_text()
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").drop_duplicates("group").set_index("group")
    assert summary["optimizer.lr"].to_dict() == {"epn, alpha 1": 0.1, "epn, alpha 2": 0.5, "naive": 0.3}
    by_strategy = summary_table(compared(tmp_path, by=["strategy"])).drop_duplicates("group").set_index("group")
    assert by_strategy["optimizer.lr"].to_dict() == {"epn": "0.1 0.5", "naive": 0.3}, "those that were averaged"


def test_grouping_by_named_columns_warns_of_what_is_averaged(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, alpha=1.0)
    write_run(tmp_path / "b", "epn", 0, alpha=2.0)
    comparison = compared(tmp_path, by=["strategy"])
    assert list(comparison.groups) == ["epn"]
    assert any("differ in alpha (1, 2)" in line for line in comparison.warnings)
    with pytest.raises(ConfigurationError, match="did you mean alpha"):
        compared(tmp_path, by=["alfa"])
    with pytest.raises(ConfigurationError, match="did you mean average_accuracy"):
        compared(tmp_path, metrics=["average_acuracy"])


def test_runs_that_are_not_comparable_are_refused_unless_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, forgetful(3))
    write_run(tmp_path / "b", "epn", 0, forgetful(4))
    write_run(tmp_path / "c", "naive", 0, forgetful(3), record={"data": "mnist"})
    with pytest.raises(RunFolderError) as refused:
        compared(tmp_path)
    for part in ("not comparable", "n_tasks is 3 (2 runs) and 4 (1 run: b)", "data is mnist5k", "--allow-mixed"):
        assert part in str(refused.value)
    comparison = compared(tmp_path, allow_mixed=True)
    assert len(comparison.groups) == 3
    assert sum(line.startswith("the runs differ: ") for line in comparison.warnings) == 2


def test_unfinished_and_failed_runs_are_reported_and_left_out(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    write_run(tmp_path / "x", "naive", 7, status="running", record={"trained_tasks": 1})
    write_run(tmp_path / "y", "naive", 8, status="failed", record={"error": "training diverged", "trained_tasks": 2})
    write_run(tmp_path / "z", "epn", 3, record={"diverged_tasks": [1, 2]})
    for name in ("p", "q"):
        write_run(tmp_path / name, "naive", 9, status="pruned", record={"error": "worse", "trained_tasks": 1})
    lines = compared(tmp_path).warnings
    assert [line for line in lines if "pruned" in line] == ["2 pruned trials of cl-powerprop tune, left out"]
    assert "x: running after 1 of 3 tasks, left out" in lines
    assert "y: failed after 2 of 3 tasks (training diverged), left out" in lines
    assert "z: no better than guessing on task(s) 1, 2, which count anyway" in lines
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
    assert "permuted on mnist5k, 3 tasks, scenario task; 9 runs in 3 groups" in text
    assert "| epn | 3 | **0.9200 ± 0.0497** | **0.0000 ± 0.0000** | **0.9200 ± 0.0497** | **30.0 ± 0.0 %** |" in text
    assert "| naive | 3 | 0.8100 ± 0.0248 | 0.1500 ± 0.0000 | 0.9100 ± 0.0248 | 100.0 ± 0.0 % |" in text
    assert "smallest p that a pair can have is 0.25" in text
    assert smallest_p(pairwise_table(comparison)).endswith("needs at least 6 seeds.")


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


def test_groups_without_a_common_seed(tmp_path: Path) -> None:
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
    sentence = smallest_p(pairwise_table(compared(tmp_path)))
    assert sentence == "With 1 to 8 seeds in common the smallest p that a pair can have is 0.00781."


def test_one_run_given_in_two_ways_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sweep(tmp_path / "sweep")
    (tmp_path / "sweep" / "loop").symlink_to(tmp_path / "sweep", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    comparison = compare_runs(load_runs(["sweep", tmp_path / "sweep"]))
    assert len(comparison.runs.runs) == 9
    curves = series.forgetting_curves(comparison)
    assert set(curves["n"]) == {3}


def test_values_that_print_alike_are_different_groups(tmp_path: Path) -> None:
    for index, lr in enumerate((0.1234561, 0.1234564)):
        for seed in (0, 1):
            write_run(tmp_path / f"{index}{seed}", "naive", seed, config={"optimizer.lr": lr})
    groups = compared(tmp_path).groups
    assert sorted(map(len, groups.values())) == [2, 2]


def test_strategies_averaged_together_are_reported(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "naive", 0)
    write_run(tmp_path / "b", "epn", 0)
    assert any("differ in strategy (epn, naive)" in line for line in compared(tmp_path, by=["alpha"]).warnings)


def test_of_repeated_runs_the_one_with_most_metrics_is_kept(tmp_path: Path) -> None:
    earlier, later = ({"finished": f"2026-0{month}-01T00:00:00+00:00"} for month in (1, 2))
    write_run(tmp_path / "within", "epn", 0, record=earlier, metrics={"min_accuracy": 0.5})
    write_run(tmp_path / "plain", "epn", 0, record=later)
    assert compared(tmp_path).groups == {"epn": ["within"]}


def test_metrics_are_those_registered_then_those_of_plugins_that_are_not_imported(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", "naive", seed, metrics={"mine.plasticity": 0.5 + seed, "joint_gap": 0.1})
        write_run(tmp_path / f"b{seed}", "epn", seed)
    comparison = compared(tmp_path)
    assert list(comparison.groups) == ["naive", "epn"], "the values of a metric do not distinguish groups"
    registered = [name for name in metrics() if name in comparison.metrics]
    assert list(comparison.metrics) == [*registered, "mine.plasticity"]
    assert comparison.metrics["mine.plasticity"].label == "mine.plasticity"
    assert [metric.name for metric in comparison.headline] == [
        name for name in registered if metrics()[name].level == "headline"
    ]
    table = summary_table(comparison)
    row = table[table["metric"] == "mine.plasticity"].iloc[0]
    assert (row["group"], row["n"], row["mean"]) == ("naive", 2, 1.0)
    lines = markdown(comparison, table, pairwise_table(comparison)).splitlines()
    assert lines[4].endswith("| gap to joint training | capacity used | mine.plasticity | zero forgetting |")
    assert lines[6].endswith("| 0.1000 ± 0.0000 | 100.0 ± 0.0 % | 1.0000 ± 6.3531 | no |")
    assert lines[7].endswith("| - | 100.0 ± 0.0 % | - | no |")


def test_chosen_metrics_are_in_every_table_and_are_tested(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep")
    for seed in range(3):
        write_run(tmp_path / f"ewc{seed}", "ewc", seed, metrics={"plasticity": 0.5, "mask_bits": 12345.6})
    comparison = compared(tmp_path, metrics=["plasticity", "mask_bits"])
    assert list(comparison.metrics) == ["plasticity", "mask_bits"]
    table, pairs = summary_table(comparison), pairwise_table(comparison)
    assert set(pairs["metric"]) == set(table["metric"]) == {"plasticity", "mask_bits"}
    text = markdown(comparison, table, pairs)
    assert "| group | seeds | plasticity | bits of masks |" in text
    assert "| ewc | 3 | 0.5000 ± 0.0000 | 12346 ± 0 |" in text


def test_the_best_groups_are_those_whose_printed_mean_is_the_best(tmp_path: Path) -> None:
    values = {"naive": (0.9, 100), "epn": (0.90001, 90), "packnet": (0.8, 90)}
    for strategy, (accuracy, bits) in values.items():
        for seed in (0, 1):
            measured = {"average_accuracy": accuracy, "mask_bits": bits, "plasticity": accuracy}
            write_run(tmp_path / f"{strategy}{seed}", strategy, seed, metrics=measured)
    comparison = compared(tmp_path)
    assert best_groups(comparison, summary_table(comparison)) == {
        *(("naive", "average_accuracy"), ("epn", "average_accuracy")),
        *(("epn", "mask_bits"), ("packnet", "mask_bits")),
    }, "no group is best where all are alike, or where a metric has no direction"


def test_runs_from_before_and_after_a_renaming_are_comparable(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", "epn", 0, record={"benchmark": "permuted_mnist"})
    text = (old / "config.yaml").read_text()
    (old / "config.yaml").write_text(text.replace("name: permuted\n", "name: permuted_mnist\n"))
    write_run(tmp_path / "new", "epn", 1)
    assert compared(tmp_path).groups == {"epn": ["old", "new"]}


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


def test_a_metric_answers_to_what_tables_call_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, metrics={"joint_gap": 0.1, "mine": 1.0})
    for asked, name in {
        "forgetting": "average_forgetting",
        "Average Forgetting": "average_forgetting",
        "average-forgetting": "average_forgetting",
        "accuracy": "average_accuracy",
        "gap to joint training": "joint_gap",
        "peak memory (MiB)": "peak_memory_mb",
        "mine": "mine",
    }.items():
        assert list(compared(tmp_path, metrics=[asked]).metrics) == [name]
    assert list(compared(tmp_path, metrics=["forgetting", "average_forgetting"]).metrics) == ["average_forgetting"]
    for metric in metrics().values():
        for asked in metric.names:
            assert find_metric(asked, metrics()) == metric, "no two metrics share a name"
    with pytest.raises(ConfigurationError, match="no run has forward_transfer; choose from: average_accuracy"):
        compared(tmp_path, metrics=["fwt"])
    with pytest.raises(ConfigurationError, match="did you mean average_forgetting"):
        compared(tmp_path, metrics=["forgeting"])


def test_a_column_answers_to_what_labels_call_it(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, config={"optimizer.lr": 0.2})
    write_run(tmp_path / "b", "epn", 0, config={"optimizer.lr": 0.5})
    assert compared(tmp_path, by=["lr", "optimizer.lr"]).by == ["optimizer.lr"]
    with pytest.raises(ConfigurationError, match=r"--by name: runs have no such column"):
        compared(tmp_path, by=["name"])


def test_baselines_are_listed_as_a_shell_takes_them(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, alpha=1.0)
    write_run(tmp_path / "b", "epn", 0, alpha=2.0)
    write_run(tmp_path / "c", "naive", 0)
    with pytest.raises(ConfigurationError) as refused:
        pairwise_table(compared(tmp_path), "epn")
    choices = str(refused.value).rpartition("choose from: ")[2]
    assert [word.rstrip(",") for word in shlex.split(choices)] == ["epn, alpha 1", "epn, alpha 2", "naive"]


def test_a_run_without_validation_does_not_change_the_curves_of_another(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, within=True)
    alone = series.forgetting_curves(compared(tmp_path))
    valid = write_run(tmp_path / "b", "naive", 0, within=True) / "curves.csv"
    valid.write_text(valid.read_text() + "x,1,2,100,0,valid,accuracy,0.5\n")
    both = series.forgetting_curves(compared(tmp_path))
    assert both[both["group"] == "epn"].reset_index(drop=True).equals(alone)


def test_tasks_that_were_confused_are_not_called_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no logit changed but tasks were inferred wrongly, table, Markdown and report say so."""
    inferred = {"scenario": "class"}
    write_run(tmp_path / "a", "epn", 0, metrics={"task_identification": 0.7}, masked=True, record=inferred)
    write_run(tmp_path / "b", "packnet", 0, metrics={"task_identification": 1.0}, masked=True, record=inferred)
    write_run(tmp_path / "c", "naive", 0, record=inferred)
    write_run(tmp_path / "d", "ewc", 0, metrics={"task_identification": 0.5}, record=inferred)
    compare([tmp_path], tmp_path / "out")
    printed = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in printed.splitlines() if line.count("│") > 3}
    assert "confused" in printed
    assert "verified to the bit" in rows["packnet"]
    note = (
        "tasks were confused, not forgotten in epn (70.0 % of the test samples identified): each task's logits are, to "
        "the bit, what they were when it was learned; where accuracy fell, another task was inferred"
    )
    assert f"note: {note}\n" in printed
    assert f"\nNote: {note}.\n" in (tmp_path / "out" / "summary.md").read_text()
    markdown = (tmp_path / "out" / "summary.md").read_text()
    assert next(line for line in markdown.splitlines() if "| epn |" in line).endswith(
        "| verified to the bit, but tasks confused |"
    )
    report = html.unescape((tmp_path / "out" / "report.html").read_text())
    assert f"Note: {note}." in report
    assert ">verified to the bit, but tasks confused</td>" in report
    assert "falls afterwards, the task is being forgotten or, where tasks are inferred, another one was." in report


def test_a_verdict_counts_the_runs_it_holds_of(tmp_path: Path) -> None:
    shares, inferred = {"task_identification": 0.7}, {"scenario": "class"}
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", "epn", seed, metrics=shares, masked=not seed, record=inferred)
        write_run(tmp_path / f"b{seed}", "packnet", seed, metrics=shares, masked=True, record=inferred)
    both = compare_runs(load_runs(tmp_path))
    assert zero_forgetting(both) == {
        "epn": ("in 1 of 2 runs", 0.5),
        "packnet": ("verified to the bit, but tasks confused", 1.0),
    }
    assert list(confused_groups(both)) == ["packnet"], "one of the runs of epn forgot something"
    alone = compare_runs(load_runs([tmp_path / "b0", tmp_path / "b1"]))
    assert "another task was inferred, and none was forgotten" in fall_of_a_curve(alone)
