"""The figures of a comparison: nothing cropped or overlapping, readable ticks, right ranges, stable colours."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from cl_powerprop.analysis import compare_runs, load_runs, series
from cl_powerprop.analysis.charts import make_charts
from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.figures import DRAWINGS
from cl_powerprop.analysis.matplotlib_elements import RC, lay_out, power_of_ten
from cl_powerprop.analysis.statistics import estimate
from cl_powerprop.analysis.style import COLOURS, DISTINCT, group_styles, shades
from cl_powerprop.analysis.tables import summary_table
from cl_powerprop.analysis.wording import wrap
from cl_powerprop.cli import main
from cl_powerprop.errors import ConfigurationError

from .folders import forgetful, write_run, write_sparsity

LONG = "an_extraordinarily_long_name_of_a_task_that_no_panel_of_a_figure_is_wide_enough_for"
STRATEGIES = ("epn", "naive", "packnet", "ewc", "joint", "mine, which has a rather long name $x$", "other", "third")


def name_tasks(run: Path, names: list[str]) -> None:
    lines = (run / "accuracy_matrix.csv").read_text().splitlines()
    (run / "accuracy_matrix.csv").write_text("\n".join([",".join(names), *lines[1:]]) + "\n")


def compared(root: Path, tasks: int, groups: int, seeds: int = 2) -> Comparison:
    """Compare groups over named tasks; weights spread over many decades, and the seeds differ much."""
    for strategy in STRATEGIES[:groups]:
        for seed in range(seeds):
            matrix = np.clip(forgetful(tasks, 9 * seed, 0.5 / tasks), 0, 1)
            sparse: Any = {"record": {"controller": "set", "target_sparsity": 0.9}}
            measured = {"sparsity": 0.9, "training_flops": 0.3 + 0.1 * seed, "inference_flops": 0.2}
            sparse |= {"metrics": measured | {"total_size": 0.4 + 0.2 * seed}}
            run = write_run(root / f"{strategy}-{seed}", strategy, seed, matrix, masked=strategy != "naive", **sparse)
            write_sparsity(run, 0.9, tasks)
            name_tasks(run, [LONG, *(f"Alphabet {task}" for task in range(1, tasks))])
            low = 10.0 ** np.arange(-8, 1)  # the free ones, then those used
            rows = pd.DataFrame({"layer": "fc", "state": ["free", *["used"] * 8], "low": low, "high": low * 10**0.1})
            rows.assign(weights=[10 * max(10, tasks) - 36, *range(1, 9)]).to_csv(run / "weights.csv", index=False)
            if strategy != "naive":  # the seeds' capacities differ so much that an interval would reach below 0
                table = pd.read_csv(run / "capacity.csv")
                table["free"] = 60 // (table["task"] + 1)
                table.loc[0, "free"] = 98 if seed else 60
                table.to_csv(run / "capacity.csv", index=False)
    return compare_runs(load_runs(root))


def drawn(comparison: Comparison, name: str) -> Figure:
    with mpl.rc_context(RC):
        figure = DRAWINGS[name](comparison)
        assert figure is not None
        lay_out(figure)
        FigureCanvasAgg(figure).draw()
    return figure


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


def ticks(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    shown = [tick.label1 for tick in axis.get_major_ticks() if low - 1e-9 <= tick.get_loc() <= high + 1e-9]
    return [text for text in shown if text.get_text() and text.get_visible()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "groups", "seeds"), [(1, 1, 1), (2, 2, 2), (10, 8, 2), (25, 2, 2), (50, 1, 1), (120, 2, 2)]
)
def test_nothing_is_cropped_or_overlaps(tmp_path: Path, tasks: int, groups: int, seeds: int) -> None:
    comparison = compared(tmp_path, tasks, groups, seeds)
    for name in DRAWINGS:
        figure = drawn(comparison, name)
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 > -0.02, name
        assert box.y0 > -0.02, name
        assert box.x1 < width + 0.02, name
        assert box.y1 < height + 0.02, name
        above: Any = figure.get_suptitle() and figure._suptitle.get_window_extent()  # type: ignore[attr-defined]
        for axes in panels(figure):
            if axes.get_title():
                assert not axes.title.get_window_extent().overlaps(above), name
            for axis in (axes.xaxis, axes.yaxis):
                texts = ticks(axis)
                assert not any("$" in text.get_text() for text in texts), name
                boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: (box.x0, box.y0))
                assert not any(a.overlaps(b) for a, b in pairwise(boxes)), (name, [t.get_text() for t in texts])
        for one, other in pairwise(axes.title.get_window_extent() for axes in panels(figure) if axes.get_title()):
            assert not one.overlaps(other), name


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "seeds"), [(1, 1), (3, 2)])
def test_shares_end_at_0_and_1_and_tasks_are_whole(tmp_path: Path, tasks: int, seeds: int) -> None:
    comparison = compared(tmp_path, tasks, 2, seeds)
    for name in ("forgetting_curves", "average_accuracy", "capacity_growth", "accuracy_against_capacity"):
        for axes in panels(drawn(comparison, name)):
            low, high = axes.get_ylim()
            assert 0 <= low < high <= 1, name
            for band in axes.collections:
                inside = band.get_datalim(axes.transData)
                assert inside.y0 >= -1e-9, name
                assert inside.y1 <= 1 + 1e-9, name
    for name in ("average_accuracy", "capacity_growth"):
        for axes in panels(drawn(comparison, name)):
            texts = [text.get_text() for text in ticks(axes.xaxis)]
            assert texts == [str(int(text)) for text in texts], name


def test_intervals_of_shares_lie_within_0_and_1(tmp_path: Path) -> None:
    growth = series.capacity_growth(compared(tmp_path, 3, 1))
    assert growth["low"].iloc[0] == 0.0, "the t-interval of 0.02 and 0.4 reaches below"
    assert growth[["low", "high"]].stack().between(0, 1).all()


def test_error_bars_of_shares_lie_within_0_and_1() -> None:
    below, above = series.error_bars(estimate([0.99, 0.05]))
    assert (below, above) == (pytest.approx(0.52), pytest.approx(0.48))
    assert series.error_bars(estimate([3.0, 3.2]))[1] > 1, "three networks and more"
    for metric in ("total_size", "wsn_capacity"):
        assert series.error_bars(estimate([0.9, 0.8]), metric)[1] == pytest.approx(0.635, abs=1e-3), "masks count too"
    assert np.isnan(series.error_bars(estimate([0.5]))).all()


def test_the_masks_of_every_group_are_drawn_whole(tmp_path: Path) -> None:
    for strategy, tasks in (("epn", 2), ("packnet", 6)):  # masks of up to 20 % and 60 % of the weights
        write_run(tmp_path / strategy, strategy, 0, forgetful(tasks), masked=True)
    for axes in panels(drawn(compare_runs(load_runs(tmp_path), allow_mixed=True), "mask_composition"))[:2]:
        assert axes.get_ylim() == (0, pytest.approx(0.63, abs=0.03))


@pytest.mark.parametrize("tasks", [3, 13])
def test_few_tasks_have_their_names_below_the_axis(tmp_path: Path, tasks: int) -> None:
    comparison = compared(tmp_path, tasks, 2)
    names = ["an_extraord…", "Alphabet 1", "Alphabet 2"]
    for name in ("mask_composition", "accuracy_matrix", "mask_overlap"):
        texts = [text.get_text() for text in ticks(panels(drawn(comparison, name))[0].xaxis)]
        assert texts == (names if tasks == 3 else [str(int(text)) for text in texts]), name
    charts = {chart.name: chart for chart in make_charts(comparison, summary_table(comparison)) if chart}
    axis = charts["composition"].layout["xaxis"]
    if tasks == 3:
        assert axis["ticktext"] == ["an_extraordinar…", "Alphabet 1", "Alphabet 2"]
    else:
        assert "ticktext" not in axis


def test_the_report_draws_intervals_of_shares_within_0_and_1(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.3, 0.95)):
        run = {"average_accuracy": accuracy, "average_forgetting": accuracy}
        write_run(tmp_path / str(seed), "epn", seed, metrics=run)
    comparison = compare_runs(load_runs(tmp_path))
    chart = next(chart for chart in make_charts(comparison, summary_table(comparison)) if chart.name == "metrics")
    bars = {trace["meta"]["choice"]: trace["error_x"] for trace in chart.traces if "error_x" in trace}
    assert bars["average_accuracy"]["array"] == [pytest.approx(0.375)]
    assert bars["average_accuracy"]["arrayminus"] == [pytest.approx(0.625)]
    assert bars["average_forgetting"]["array"] == bars["average_forgetting"]["arrayminus"], "which can be negative"
    assert bars["average_forgetting"]["array"][0] > 1


def test_every_panel_has_the_name_of_its_task(tmp_path: Path) -> None:
    comparison = compared(tmp_path, 3, 2)
    labels = [f"task 0: {LONG}", "task 1: Alphabet 1", "task 2: Alphabet 2"]
    titles = [axes.get_title() for axes in panels(drawn(comparison, "forgetting_curves"))]
    assert ["".join(title.split()) for title in titles] == ["".join(label.split()) for label in labels]
    charts = {chart.name: chart for chart in make_charts(comparison, summary_table(comparison)) if chart}
    assert list(charts["forgetting"].choices.values())[1:] == labels
    for name in ("matrix", "overlap"):
        assert charts[name].traces[0]["x"] == labels
        assert charts[name].layout["xaxis"]["ticktext"] == [f"{LONG[:15]}…", "Alphabet 1", "Alphabet 2"]


def test_a_task_that_differs_between_runs_has_a_number(tmp_path: Path) -> None:
    for seed, names in enumerate((["a", "c", "task_2"], ["b", "c", "task_2"])):
        name_tasks(write_run(tmp_path / str(seed), seed=seed), names)
    titles = [axes.get_title() for axes in panels(drawn(compare_runs(load_runs(tmp_path)), "forgetting_curves"))]
    assert titles == ["task 0", "task 1: c", "task 2"]


@pytest.mark.slow
def test_only_repeated_runs_have_means_and_intervals(tmp_path: Path) -> None:
    def texts(seeds: int) -> str:
        comparison = compared(tmp_path / str(seeds), 3, 2, seeds)
        figures = [drawn(comparison, name).get_suptitle() for name in DRAWINGS]
        charts = [chart.about for chart in make_charts(comparison, summary_table(comparison)) if chart]
        return " ".join([*figures, *charts]).replace("\n", " ").lower()

    single, repeated = texts(1), texts(2)
    for words in ("mean over", "interval"):
        assert words not in single
        assert words in repeated


@pytest.mark.slow
def test_colours_follow_the_group_and_not_its_position(tmp_path: Path) -> None:
    for seed in range(2):
        for strategy in ("naive", "packnet", "epn"):
            write_run(tmp_path / "all" / f"{strategy}-{seed}", strategy, seed, masked=strategy != "naive")
        write_run(tmp_path / "few" / f"a{seed}", "packnet", seed, masked=True)
        write_run(tmp_path / "few" / f"b{seed}", "epn", seed, masked=True)
    found: list[dict[str, str]] = []
    for folder in ("all", "few"):
        comparison = compare_runs(load_runs(tmp_path / folder))
        found += [
            _colours(drawn(comparison, name)) for name in ("average_accuracy", "accuracy_against_capacity", "weights")
        ]
        charts = [chart for chart in make_charts(comparison, summary_table(comparison)) if chart]
        for chart in charts:
            lines = [trace for trace in chart.traces if trace["meta"]["group"] and "fill" not in trace]
            found += [{t["meta"]["group"]: (t.get("line") or t["marker"])["color"] for t in lines}]
    merged: dict[str, set[str]] = {}
    for colours in found:
        for label, colour in colours.items():
            merged.setdefault(label, set()).add(colour)
    assert set(merged) == {"naive", "packnet", "epn"}
    assert all(len(colours) == 1 for colours in merged.values()), merged
    assert len(set.union(*merged.values())) == 3


def _colours(figure: Figure) -> dict[str, str]:
    handles, labels = panels(figure)[0].get_legend_handles_labels()
    return {label: to_hex(handle.get_color()) for handle, label in zip(handles, labels, strict=True)}  # type: ignore[attr-defined]


def test_styles_are_distinct_and_rarely_move() -> None:
    many = [f"epn, alpha {number / 10:g}" for number in range(DISTINCT)]
    assert len(set(group_styles(many).values())) == DISTINCT
    assert len({style.colour for style in group_styles(many[: len(COLOURS)]).values()}) == len(COLOURS)
    assert group_styles(many) == group_styles(reversed(many))
    assert list(group_styles(many)) == many
    assert len(group_styles([*many, "more", "and more"])) == DISTINCT + 2
    kept = 0
    for label in many:
        alone = group_styles([label])[label]
        kept += alone == group_styles([label, "naive", "packnet"])[label]
    assert kept == DISTINCT


def _contrast(one: str, other: str) -> float:
    light = []
    for colour in (one, other):
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        light.append(float(np.dot(linear, [0.2126, 0.7152, 0.0722])) + 0.05)
    return max(light) / min(light)


def test_colours_can_be_seen_on_a_white_and_on_a_dark_page() -> None:
    for colour in COLOURS:
        assert _contrast(colour, "#161616") > 3
        assert _contrast(colour, "#ffffff") > 2.2
    for colour in shades(200):
        assert _contrast(colour, "#161616") > 2
        assert _contrast(colour, "#ffffff") > 1.5


@pytest.mark.slow
def test_the_legend_names_every_group_that_can_be_told_apart(tmp_path: Path) -> None:
    for number in range(DISTINCT + 5):
        write_run(tmp_path / str(number), "epn", alpha=1 + number / 10)
    comparison = compare_runs(load_runs(tmp_path))
    figure = drawn(comparison, "average_accuracy")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(comparison.groups)[:DISTINCT]
    assert f"the first {DISTINCT} of {DISTINCT + 5} groups" in figure.get_suptitle().replace("\n", " ")
    assert "the first 12 of 45 groups" in drawn(comparison, "accuracy_matrix").get_suptitle()
    assert panels(figure)[0].get_window_extent().height > 200, "the figure grows by its legend"


def test_a_histogram_is_drawn_from_edge_to_edge_with_its_gaps() -> None:
    rows = pd.DataFrame({"low": [1.0, 2.0, 8.0], "high": [2.0, 4.0, 16.0], "share": [0.2, 0.5, 0.3]})
    x, y = series.histogram_outline(rows)
    steps = [(left, level) for left, level in zip(x, y, strict=True)]
    assert steps == [(1, 0), (1, 0.2), (2, 0.5), (4, 0), (8, 0.3), (16, 0)]


def test_powers_of_ten_are_plain_text() -> None:
    assert [power_of_ten(value) for value in (1e-7, 0.001, 1.0, 0.02, 500.0)] == [
        "10⁻⁷",
        "10⁻³",
        "10⁰",
        "2·10⁻²",
        "5·10²",
    ]


@pytest.mark.parametrize(
    ("count", "step"), [(1, 1), (10, 1), (11, 2), (25, 5), (50, 5), (51, 10), (200, 20), (1000, 100)]
)
def test_ticks_are_regular(count: int, step: int) -> None:
    assert series.tick_step(count) == step


@pytest.mark.slow
def test_the_files_have_the_chosen_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(tmp_path / "runs", 2, 2)
    out = tmp_path / "out"
    assert _command(tmp_path / "runs", out, "pdf,svg") == 0
    assert {path.suffix for path in out.glob("accuracy_matrix.*")} == {".pdf", ".svg"}
    first = (out / "weights.pdf").read_bytes()
    assert first.startswith(b"%PDF")
    again = compare([tmp_path / "runs"], tmp_path / "again", formats=["pdf"], quiet=True)
    assert (again.folder / "weights.pdf").read_bytes() == first
    assert "weights.pdf" in again.files
    compare([tmp_path / "runs"], out, quiet=True)
    assert {path.suffix for path in out.glob("weights.*")} == {".png", ".svg"}, "earlier PDF files are replaced"
    for wrong in ("jpg", "png,jpg", ""):
        capsys.readouterr()
        assert _command(tmp_path / "runs", tmp_path / "bad", wrong) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "choose from: png, svg, pdf" in line
        assert not (tmp_path / "bad").exists()
    with pytest.raises(ConfigurationError, match="choose from"):
        compare([tmp_path / "runs"], out, formats=[], quiet=True)


def _command(runs: Path, out: Path, formats: str) -> object:
    with pytest.raises(SystemExit) as done:
        main(["compare", str(runs), "--out", str(out), "--format", formats])
    return done.value.code


@pytest.mark.parametrize("inches", [1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0])
def test_a_number_and_its_per_cent_sign_stay_in_one_line(inches: float) -> None:
    text = "Omniglot-50, by drawer: accuracy against total size (bars: 95 % t-interval), EPN with 30 % at most"
    lines = wrap(text, inches, 10).split("\n")
    assert " ".join(lines) == text
    assert not [line for line in lines if line.startswith("%")]
