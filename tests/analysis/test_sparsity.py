"""Runs of sparse training compared: grouped by controller and target, and drawn against density and FLOPs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cl_powerprop.analysis import compare_runs, load_runs, sparsity_series, summary_table
from cl_powerprop.analysis.charts import make_charts
from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.notes import MOST_DRAWN
from cl_powerprop.analysis.summary import print_runs

from .folders import LAYERS, write_run, write_sparse_run
from .test_figures import drawn, panels, ticks

TARGETS = (0.9, 0.98)


def sparse_runs(root: Path, controllers: tuple[str, ...] = ("rigl", "set"), seeds: int = 2) -> Path:
    """Write dense runs, and runs of each controller at each target, with alpha 1 and 2."""
    for seed in range(seeds):
        for alpha in (1.0, 2.0):
            write_sparse_run(root / f"dense-{alpha}-{seed}", None, 0.0, seed, 0.95 + 0.01 * seed, alpha)
            for controller in controllers:
                for target in TARGETS:
                    folder = root / f"{controller}-{target}-{alpha}-{seed}"
                    accuracy = 0.8 + 0.05 * alpha - 0.1 * (target > 0.9) + 0.01 * seed
                    write_sparse_run(folder, controller, target, seed, accuracy, alpha)
    return root


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare_runs(load_runs(sparse_runs(tmp_path_factory.mktemp("runs"))))


def test_groups_differ_in_controller_target_and_alpha(comparison: Comparison) -> None:
    assert comparison.by == ["strategy", "controller", "target_sparsity", "alpha"]
    assert set(comparison.groups) == {"dense, alpha 1", "dense, alpha 2"} | {
        f"{controller}, target {target}, alpha {alpha}"
        for controller in ("rigl", "set")
        for target in TARGETS
        for alpha in (1, 2)
    }
    assert comparison.warnings == []
    table = summary_table(comparison)
    rows = table[(table["controller"] == "rigl") & (table["target_sparsity"] == 0.98) & (table["alpha"] == 2)]
    assert rows.set_index("metric")["mean"]["average_accuracy"] == pytest.approx(0.805)
    assert rows.set_index("metric")["mean"]["sparsity"] == 0.98


def test_columns_can_be_asked_for(comparison: Comparison) -> None:
    assert list(compare_runs(comparison.runs, by=["controller"]).groups) == ["dense", "rigl", "set"]
    by_target = compare_runs(comparison.runs, by=["target_sparsity"]).groups
    assert set(by_target) == {"dense", "target 0.9", "target 0.98"}


def test_metrics_of_sparse_training_are_in_every_table(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse = {"sparsity", "training_flops", "inference_flops"}
    assert {metric.name for metric in comparison.headline} == sparse | {"average_accuracy"}
    folders = [Path(path) for path in comparison.runs.runs["path"][:5]]
    print_runs(folders)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("controller", "target", "sparsity", "training FLOPs", "inference FLOPs"))
    assert "forgetting" not in printed.splitlines()[2].replace("zero forgetting", "")


def test_other_runs_have_the_tables_that_they_had(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics={"sparsity": 0.0, "training_flops": 1.0, "inference_flops": 1.0})
    write_run(tmp_path / "b", "epn", metrics={"sparsity": 0.5, "inference_flops": 0.4}, masked=True)
    found = compare_runs(load_runs(tmp_path))
    names = ["average_accuracy", "average_forgetting", "learning_accuracy", "capacity_used"]
    assert [metric.name for metric in found.headline] == names
    assert not sparsity_series.is_sparse(found)
    charts = [chart.name for chart in make_charts(found, summary_table(found)) if chart]
    assert not any("density" in name or "flops" in name for name in charts)


def test_a_line_is_what_differs_in_the_target_alone(comparison: Comparison) -> None:
    table = sparsity_series.accuracy_against(comparison, "density")
    rigl = table[(table["controller"] == "rigl") & (table["line"] == "alpha 2")]
    assert rigl["x"].tolist() == pytest.approx([0.02, 0.1])
    assert rigl["mean"].tolist() == pytest.approx([0.805, 0.905])
    half = 12.706 * 0.01 / 2  # Student's t for two seeds, times their standard error
    assert rigl["low"].tolist() == pytest.approx([0.805 - half, 0.905 - half], abs=1e-4)
    flops = sparsity_series.accuracy_against(comparison, "training_flops")
    rigl = flops[(flops["controller"] == "rigl") & (flops["line"] == "alpha 2")]
    assert rigl["x"].tolist() == pytest.approx([0.51, 0.55])


def test_controllers_have_panels_and_dense_networks_a_line_across(comparison: Comparison) -> None:
    figure = drawn(comparison, "accuracy_against_density")
    assert [axes.get_title() for axes in panels(figure)] == ["rigl", "set"]
    for axes in panels(figure):
        assert axes.get_xscale() == "log"
        assert [text.get_text() for text in ticks(axes.xaxis)] == ["2%", "5%", "10%"]
        lines = [line.get_ydata() for line in axes.get_lines()]
        assert [len(values) for values in lines] == [2, 2, 2, 2]
        assert lines[0] == pytest.approx([0.955, 0.955]), "the dense network with alpha 1"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["alpha 1", "alpha 2"]
    charts = {chart.name: chart for chart in make_charts(comparison, summary_table(comparison)) if chart}
    chart = charts["against_density"]
    assert list(chart.choices) == ["rigl", "set"]
    lines = [t for t in chart.traces if t["meta"]["choice"] == "set" and t.get("name") == "alpha 2"]
    assert [trace["y"] for trace in lines] == [pytest.approx([0.805, 0.905]), pytest.approx([0.955, 0.955])]


def test_controllers_alone_are_lines_of_one_panel(tmp_path: Path) -> None:
    write_sparse_run(tmp_path / "dense", None, 0.0)
    for controller in ("rigl", "set"):
        for target in TARGETS:
            write_sparse_run(tmp_path / f"{controller}-{target}", controller, target, accuracy=0.8)
    figure = drawn(compare_runs(load_runs(tmp_path)), "accuracy_against_inference_flops")
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"dense", "rigl", "set"}
    assert len(panels(figure)) == 1


def test_a_network_pruned_after_training_is_a_line(tmp_path: Path) -> None:
    for seed in range(2):
        folder = write_sparse_run(tmp_path / str(seed), None, 0.0, seed)
        rows = {"run_id": "x", "density": [1.0, 0.1], "eval_task": 0, "accuracy": [0.9, 0.5 + 0.1 * seed], "loss": 1.0}
        pd.DataFrame(rows).to_csv(folder / "pruning.csv", index=False)
    found = compare_runs(load_runs(tmp_path))
    table = sparsity_series.accuracy_against(found, "density")
    curve = table[table["pruned"]]
    assert curve["x"].tolist() == [0.1, 1.0]
    assert curve["mean"].tolist() == pytest.approx([0.55, 0.9])
    (axes,) = panels(drawn(found, "accuracy_against_density"))
    assert axes.get_xlim()[0] > 1.0 > 0.1 > axes.get_xlim()[1], "dense networks are on the left"
    charts = {chart.name for chart in make_charts(found, summary_table(found)) if chart}
    assert "against_density" in charts
    assert "against_training_flops" not in charts, "one dense network says nothing there"


def test_networks_of_each_target_that_are_pruned_further_are_lines_of_their_own(tmp_path: Path) -> None:
    for target in TARGETS:
        folder = write_sparse_run(tmp_path / str(target), "set", target)
        rows = {"run_id": "x", "density": [0.02, 0.01], "eval_task": 0, "accuracy": [target, 0.1], "loss": 1.0}
        pd.DataFrame(rows).to_csv(folder / "pruning.csv", index=False)
    found = compare_runs(load_runs(tmp_path))
    (axes,) = panels(drawn(found, "accuracy_against_density"))
    lines = [list(map(tuple, line.get_xydata())) for line in axes.get_lines()]  # type: ignore[arg-type]
    curves = [[(0.01, 0.1), (0.02, target)] for target in TARGETS]
    assert lines == [*curves, [pytest.approx((0.02, 0.9)), pytest.approx((0.1, 0.9))]]
    charts = {chart.name: chart for chart in make_charts(found, summary_table(found)) if chart}
    dashed = [trace for trace in charts["against_density"].traces if trace["line"]["dash"] == "dash"]
    assert [trace["y"] for trace in dashed] == [[0.1, target] for target in TARGETS]
    assert [trace["showlegend"] for trace in charts["against_density"].traces] == [True, False, False]


def test_layers_and_all_of_them_over_training(comparison: Comparison) -> None:
    table = sparsity_series.layer_densities(comparison)
    rows = table[table["group"] == "rigl, target 0.98, alpha 1"]
    assert list(dict.fromkeys(rows["layer"])) == [*LAYERS, sparsity_series.ALL]
    last = rows[rows["step"] == 600].set_index("layer")["density"]
    expected = {layer: 0.02 ** (1 / (index + 1)) for index, layer in enumerate(LAYERS)}
    assert last[list(LAYERS)].to_dict() == pytest.approx(expected, abs=1e-3)
    kept = sum(round(weights * expected[layer]) for layer, weights in LAYERS.items())
    assert last[sparsity_series.ALL] == pytest.approx(kept / sum(LAYERS.values()))


def test_how_masks_change_is_counted_over_all_layers(comparison: Comparison) -> None:
    table = sparsity_series.exploration(comparison)
    last = table[(table["group"] == "set, target 0.9, alpha 2") & (table["step"] == 600)].set_index("quantity")["mean"]
    frame = pd.read_csv(Path(comparison.runs.runs.loc["set-0.9-2.0-0", "path"]) / "sparsity.csv")
    whole = frame[frame["epoch"] == 6].sum(numeric_only=True)
    assert last["grown"] == pytest.approx(whole["grown"] / whole["active"])
    assert last["regrown"] == pytest.approx(whole["regrown"] / whole["grown"])
    assert last["ever_active"] == pytest.approx(whole["ever_active"] / whole["weights"])
    assert last["dead_units"] == 120


def test_figures_over_densities_have_all_of_many_groups(tmp_path: Path) -> None:
    targets = np.linspace(0.5, 0.99, MOST_DRAWN + 5)
    for target in targets:
        write_sparse_run(tmp_path / f"{target:.4f}", "rigl", float(target), accuracy=1.0 - 0.5 * target)
    compared = compare([tmp_path], tmp_path / "out", quiet=True).comparison
    best = compared.best(MOST_DRAWN)
    assert len(best.groups) == MOST_DRAWN
    assert len(sparsity_series.accuracy_against(best, "density")) == len(targets)
    assert "and so have the figures" in (tmp_path / "out" / "summary.md").read_text()
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"accuracy_against_density.png", "layer_density.svg", "exploration.png"} <= written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.assign(active=frame["weights"] + 1), "more weights are active than there are"),
        (lambda frame: frame.assign(regrown=frame["grown"] + 1), "more weights were grown again than were grown"),
        (lambda frame: frame.assign(weights=0, active=0, ever_active=0), "a layer has no weights"),
        (lambda frame: frame.assign(task=1), "a number in its column task is impossible"),
        (lambda frame: pd.concat([frame, frame[:1]]), "a row is repeated"),
        (lambda frame: frame[:-1], "rows are missing"),
        (lambda frame: frame.drop(columns="grown"), "its columns are"),
    ],
)
def test_a_damaged_file_costs_itself_only(tmp_path: Path, change: object, message: str) -> None:
    for name in ("good", "bad"):
        write_sparse_run(tmp_path / name, "rigl", 0.9, seed=int(name == "bad"))
    path = tmp_path / "bad" / "sparsity.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)  # type: ignore[operator]
    loaded = load_runs(tmp_path)
    (problem,) = loaded.problems
    assert "sparsity.csv is damaged" in problem
    assert message in problem
    assert set(loaded.sparsity["run"]) == {"good"}
    assert len(loaded.runs) == 2


def test_a_missing_file_is_told_where_there_must_be_one(tmp_path: Path) -> None:
    (write_sparse_run(tmp_path / "sparse", "rigl", 0.9) / "sparsity.csv").unlink()
    write_sparse_run(tmp_path / "dense", None, 0.0)
    (problem,) = load_runs(tmp_path).problems
    assert problem.endswith("sparse: sparsity.csv is missing")


@pytest.mark.parametrize(("density", "accuracy"), [(0.0, 0.5), (1.5, 0.5), (0.5, 1.5)])
def test_damaged_pruning_is_left_out(tmp_path: Path, density: float, accuracy: float) -> None:
    folder = write_sparse_run(tmp_path / "run", None, 0.0)
    rows = {"run_id": "x", "density": [density], "eval_task": 0, "accuracy": accuracy, "loss": 1.0}
    pd.DataFrame(rows).to_csv(folder / "pruning.csv", index=False)
    (problem,) = load_runs(tmp_path).problems
    assert "pruning.csv is damaged" in problem


@pytest.mark.parametrize(
    ("record", "metrics", "message"),
    [
        ({"controller": 3}, {}, "controller is 3"),
        ({"target_sparsity": -1}, {}, "target_sparsity is -1"),
        ({}, {"sparsity": 1.5}, "sparsity is 1.5"),
        ({}, {"training_flops": -0.5}, "training_flops is -0.5"),
    ],
)
def test_impossible_numbers_cost_the_run(
    tmp_path: Path, record: dict[str, object], metrics: dict[str, float], message: str
) -> None:
    write_run(tmp_path / "good")
    write_run(tmp_path / "bad", record=record, metrics=metrics)
    (problem,) = load_runs(tmp_path).problems
    assert message in problem


def test_all_labels_of_one_line_differ_in_other_options_too(tmp_path: Path) -> None:
    for distribution in ("erk", "uniform"):
        for target in TARGETS:
            folder = write_sparse_run(tmp_path / f"{distribution}-{target}", "rigl", target, accuracy=0.9)
            with (folder / "config.yaml").open("a") as file:
                file.write(f"  distribution: {distribution}\n")
    found = compare_runs(load_runs(tmp_path))
    assert found.by == ["strategy", "target_sparsity", "sparsity.distribution"]
    assert "target 0.9, distribution erk" in next(iter(found.groups))
    assert set(sparsity_series.accuracy_against(found, "density")["line"]) == {
        "distribution erk",
        "distribution uniform",
    }
