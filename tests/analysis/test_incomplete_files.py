"""Files that are cut off at the end of a line, and values that no run can have: one line says so, and none is drawn."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cl_powerprop.analysis import compare_runs, load_runs, series
from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.statistics import Estimate
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.process import USAGE_ERROR

from .folders import forgetful, write_run, write_sweep

TABLES = {
    "curves": "curves.csv",
    "capacity": "capacity.csv",
    "reuse": "reuse.csv",
    "overlap": "mask_overlap.csv",
    "weights": "weights.csv",
}
VICTIM = "epn-1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep", seeds=2)


def one_problem(root: Path, run: str = VICTIM) -> str:
    """Return the only problem there is, without the folder, which must be that of the run."""
    (problem,) = load_runs(root).problems
    folder, _, reason = problem.partition(": ")
    assert folder == run
    return reason


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_csv(path)).to_csv(path, index=False)


def record(run: Path, **changes: object) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | changes))


def measured(run: Path, **changes: object) -> None:
    record(run, metrics=json.loads((run / "run.json").read_text())["metrics"] | changes)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_a_file_that_is_cut_off_at_the_end_of_a_line_is_left_out(root: Path, table: str, share: float) -> None:
    path = root / VICTIM / TABLES[table]
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[: int(share * len(rows))]]) + "\n")
    assert one_problem(root).startswith(f"{TABLES[table]} is damaged and left out (")
    loaded = load_runs(root)
    assert len(loaded.runs) == 6
    assert VICTIM not in set(getattr(loaded, table)["run"])
    for other in TABLES.keys() - {table}:
        assert VICTIM in set(getattr(loaded, other)["run"])


@pytest.mark.parametrize("file", TABLES.values())
def test_a_file_that_is_missing_is_one_line(root: Path, file: str) -> None:
    (root / VICTIM / file).unlink()
    assert one_problem(root) == f"{file} is missing"


def test_a_run_with_masks_and_none_of_their_files(root: Path) -> None:
    measured(root / VICTIM, mask_bits=300)
    for table in ("capacity", "reuse", "overlap"):
        (root / VICTIM / TABLES[table]).unlink()
    assert [problem.rpartition(": ")[2] for problem in load_runs(root).problems] == [
        f"{TABLES[table]} is missing" for table in ("capacity", "reuse", "overlap")
    ]


def test_curves_that_are_left_out_are_drawn_from_the_matrix(root: Path) -> None:
    whole = series.forgetting_curves(compare_runs(load_runs(root)))
    path = root / VICTIM / "curves.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    pd.testing.assert_frame_equal(series.forgetting_curves(compare_runs(load_runs(root))), whole)


def test_a_row_missing_in_the_middle_is_noticed(root: Path) -> None:
    for file in ("curves.csv", "reuse.csv", "mask_overlap.csv", "capacity.csv"):
        lines = (root / VICTIM / file).read_text().splitlines(keepends=True)
        middle = 2 if file != "curves.csv" else next(i for i, line in enumerate(lines) if line.startswith("x,2,"))
        (root / VICTIM / file).write_text("".join(lines[:middle] + lines[middle + 1 :]))
        assert file in one_problem(root)
        (root / VICTIM / file).write_text("".join(lines))


def test_runs_whose_files_are_short_for_a_reason(tmp_path: Path) -> None:
    """One task reuses nothing; an unfinished run has few rows; a learner may know tasks before its run."""
    write_run(tmp_path / "single", "epn", matrix=forgetful(1), masked=True)
    write_run(tmp_path / "running", "epn", masked=True, status="running", record={"trained_tasks": 1})
    for file in TABLES.values():
        path = tmp_path / "running" / file
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    (tmp_path / "running" / "weights.csv").unlink()
    resumed = write_run(tmp_path / "resumed", "epn", masked=True)
    for file in ("capacity.csv", "reuse.csv"):
        edit(resumed / file, lambda frame: frame.query("task > 0"))
    assert load_runs(tmp_path).problems == []


IMPOSSIBLE = {
    **{f"kept {column}": ("capacity.csv", 1, column, 99999999) for column in ("kept", "newly_frozen", "reused")},
    "free": ("capacity.csv", 1, "free", 101),
    "no weights": ("capacity.csv", slice(None), ["weights", "kept", "newly_frozen", "reused", "free"], 0),
    "reused from": ("reuse.csv", 0, "weights", 99999999),
    "from a later task": ("reuse.csv", 0, "from_task", 2),
    "shared": ("mask_overlap.csv", 1, "weights", 99999999),
    "shared with itself": ("mask_overlap.csv", 5, "weights", 99999999),
    "counted": ("weights.csv", 0, "weights", 99999999),
    "nothing counted": ("weights.csv", slice(None), "weights", 0),
    "a state": ("weights.csv", 0, "state", "lost"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_numbers_that_no_run_writes_cost_their_file(root: Path, name: str) -> None:
    file, row, column, value = IMPOSSIBLE[name]

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = value
        return frame

    edit(root / VICTIM / file, change)
    assert one_problem(root).startswith(f"{file} is damaged and left out (")


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("average_accuracy", 2.5),
        ("learning_accuracy", -0.1),
        ("task_identification", 1.1),
        ("average_forgetting", -1.5),
        ("backward_transfer", 3),
        ("capacity_used", -1),
        ("mask_bits", -8),
    ],
)
def test_metrics_that_no_run_can_have_cost_the_folder(root: Path, metric: str, value: float) -> None:
    measured(root / VICTIM, **{metric: value})
    assert one_problem(root) == f"run.json is damaged: its {metric} is {value:g}"


def test_a_metric_of_somebody_else_has_any_value_and_several_networks_a_capacity_above_1(root: Path) -> None:
    measured(root / VICTIM, mine=-7.5, capacity_used=3, average_accuracy=1 + 1e-12)
    assert load_runs(root).problems == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_tasks": 0, "trained_tasks": None}, "its n_tasks is 0"),
        ({"n_tasks": -3, "trained_tasks": None}, "its n_tasks is -3"),
        ({"trained_tasks": -1}, "its trained_tasks is -1"),
        ({"trained_tasks": 9}, "it is complete, and 9 of 3 tasks trained"),
        ({"trained_tasks": 2}, "it is complete, and 2 of 3 tasks trained"),
        ({"seconds": {"train": 1.0, "total": -1.0}}, "its seconds.total is -1.0"),
        ({"seconds": [1.0]}, "its seconds is [1.0]"),
        ({"metrics": {"capacity_used": 1.0, "average_accuracy": "1"}}, "its metrics.average_accuracy is '1'"),
        ({"peak_memory_mb": -1.0}, "its peak_memory_mb is -1.0"),
        ({"schema_version": None}, "it has no schema_version"),
    ],
)
def test_facts_that_cannot_be(root: Path, changes: dict[str, object], reason: str) -> None:
    record(root / VICTIM, **changes)
    assert one_problem(root) == f"run.json is damaged: {reason}"
    content = json.loads((root / VICTIM / "run.json").read_text())
    content = {key: value for key, value in content.items() if value is not None}
    (root / VICTIM / "run.json").write_text(json.dumps(content))
    assert one_problem(root) == f"run.json is damaged: {reason}", "where the key is absent"


def test_bars_never_have_a_negative_length() -> None:
    assert series.error_bars(Estimate(2, -1e-9, 1e-9, -2e-9, 1e-9, -2e-9, 1e-9))[0] == 0.0
    assert all(map(np.isnan, series.error_bars(Estimate(1, 0.5, *[float("nan")] * 5))))


@pytest.mark.parametrize("section", ["benchmark", "model", "strategy", "optimizer", "seed", "head"])
def test_a_config_without_one_of_its_sections_costs_its_folder(root: Path, section: str) -> None:
    path = root / VICTIM / "config.yaml"
    text = path.read_text()
    if section == "head":
        path.write_text(text[text.index("model:") :])
        section = "benchmark"
    else:
        path.write_text(re.sub(rf"^{section}:.*\n( .*\n)*", "", text, flags=re.MULTILINE))
    assert one_problem(root) == f"config.yaml is damaged: it has no {section}"
    compare_runs(load_runs(root))


def test_a_recorded_run_of_somebodys_own_script_has_fewer_sections(root: Path) -> None:
    path = root / VICTIM / "config.yaml"
    path.write_text("benchmark:\n  name: permuted\n  n_tasks: 3\ntrain:\n  epochs: 1\noptimizer:\n  lr: 0.1\nseed: 1\n")
    assert load_runs(root).problems == []


def test_the_number_of_tasks_is_that_of_the_run_and_written_as_it_is(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0)
    other = write_run(tmp_path / "b", "epn", 1) / "config.yaml"
    other.write_text(other.read_text().replace("n_tasks: 3", "n_tasks: null"))
    assert compare_runs(load_runs(tmp_path)).groups == {"epn": ["a", "b"]}
    other.write_text(other.read_text().replace("n_tasks: null", "validation: 5"))
    with pytest.raises(RunFolderError, match=r"benchmark.validation is 0.1 \(1 run: a\) and 5 \(1 run: b\)"):
        compare_runs(load_runs(tmp_path))


REASONS: dict[str, tuple[str, bytes, str]] = {
    "null": ("run.json", b"null", "run.json is damaged: it is no JSON object"),
    "a list": ("run.json", b"[1]", "run.json is damaged: it is no JSON object"),
    "no version": ("run.json", b"{}", "run.json is damaged: it has no schema_version"),
    "no JSON": ("run.json", b"", "run.json is damaged (it is no JSON: Expecting value: line 1 column 1 (char 0))"),
    "many digits": ("run.json", b"1" * 5000, "run.json is damaged (a number is too large)"),
    "nested": ("run.json", b"[" * 100000, "run.json is damaged (it is nested too deeply)"),
    "latin-1 JSON": ("run.json", b'{"a": "\xe9"}', "run.json is damaged (it is not UTF-8 text)"),
    "UTF-16": ("config.yaml", "\ufeffa: 0\n".encode("utf-16-be"), "config.yaml cannot be read (it is not UTF-8 text)"),
    "latin-1": ("config.yaml", b"a: \xe9\n", "config.yaml cannot be read (it is not UTF-8 text)"),
    "YAML": ("config.yaml", b"\na: [1\n", "config.yaml cannot be read (did not find expected ',' or ']' in line 3)"),
    "a list of YAML": ("config.yaml", b"- a\n", "config.yaml is damaged: it is no mapping"),
    "itself": ("config.yaml", b"a: &a {x: *a}\n", "config.yaml cannot be read (it contains itself)"),
    "many": ("config.yaml", b"[%s1]\n" % (b"1," * 6000), "config.yaml cannot be read (it has more than 5000 values)"),
    "a name": ("accuracy_matrix.csv", b"a,b,c\nx,,\n,,\n,,\n", "accuracy_matrix.csv is damaged ('x' is no number)"),
}


@pytest.mark.parametrize("name", REASONS)
def test_reasons_are_plain_words(root: Path, name: str) -> None:
    file, content, reason = REASONS[name]
    (root / VICTIM / file).write_bytes(content)
    assert one_problem(root) == reason


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("0,fc", "zero,fc", "'zero' is no whole number"),
        ("0,fc", "0.5,fc", "a number is missing, or is not whole"),
        ("0,fc", ",fc", "'' is no whole number"),
        ("0,fc", "99999999999999999999,fc", "a number is too large"),
        (",80\n", ",80,1\n", "a row has too many or too few fields"),
        ("0,fc", '0,"fc', "a quotation mark is not closed"),
        ("fc", "f\udce9", "it is not UTF-8 text"),
    ],
)
def test_reasons_of_tables_are_plain_words(root: Path, old: str, new: str, reason: str) -> None:
    path = root / VICTIM / "capacity.csv"
    path.write_text(path.read_text().replace(old, new, 1), errors="surrogateescape")
    assert one_problem(root) == f"capacity.csv is damaged and left out ({reason})"


@pytest.mark.parametrize("file", ["run.json", "config.yaml", "accuracy_matrix.csv"])
def test_files_that_are_not_there_or_no_files(root: Path, file: str) -> None:
    path = root / VICTIM / file
    path.unlink()
    if file != "run.json":  # without it, there is no run
        assert "No such file or directory" in one_problem(root)
        assert str(path) not in one_problem(root)
    path.mkdir()
    assert "it is not a file" in one_problem(root)


def test_a_value_that_is_none_is_null_in_a_warning(tmp_path: Path) -> None:
    for name, clip in (("naive", 1.0), ("epn", "null")):
        path = write_run(tmp_path / name, name) / "config.yaml"
        path.write_text(path.read_text() + f"train:\n  clip_norm: {clip}\n")
    assert compare_runs(load_runs(tmp_path)).warnings == ["groups differ in train.clip_norm: epn null; naive 1"]


def test_an_option_that_a_strategy_lacks_is_no_difference_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "epn", 0, config={"strategy.gamma": 0.9})
    other = write_run(tmp_path / "b", "naive", 0) / "config.yaml"
    other.write_text(other.read_text().replace("  gamma: null\n", ""))
    (warning,) = compare_runs(load_runs(tmp_path), by=["alpha"]).warnings
    assert warning.endswith("its runs differ in strategy (epn, naive) and are averaged anyway")


def test_columns_that_hold_lists_are_no_groups(root: Path) -> None:
    for column in ("messages", "diverged_tasks"):
        with pytest.raises(ConfigurationError) as refused:
            compare_runs(load_runs(root), by=[column])
        assert f"--by {column}: runs cannot be grouped by it; those that vary: strategy" in str(refused.value)
    with pytest.raises(ConfigurationError) as refused:
        compare_runs(load_runs(root), by=["mesages"])
    assert "did you mean messages" not in str(refused.value)


def test_formats_may_be_separated_by_a_comma_and_a_space(root: Path, tmp_path: Path) -> None:
    from cl_powerprop.cli import main

    command = ["compare", str(root), "--out", str(tmp_path / "out"), "--format"]
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*command, "png, pdf,"])
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".pdf", ".csv", ".md", ".html"}
    with pytest.raises(SystemExit, match=rf"^{USAGE_ERROR}$"):
        main([*command, " "])
    with pytest.raises(ConfigurationError, match="choose from: png, svg, pdf"):
        compare([root], tmp_path / "out", formats=[])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("benchmark", "nonsense"), ("strategy", "another"), ("model", "another"), ("optimizer", "adam")),
        *(
            ("optimizer", "adam"),
            ("alpha", 1e17),
            ("seed", -5),
            ("seed", 10**17),
            ("benchmark", "\u200b"),
        ),
    ],
)
def test_a_run_that_contradicts_its_config_is_left_out(tmp_path: Path, key: str, value: Any) -> None:
    """Else one false value would keep all runs from being compared, and nobody would know whose it is."""
    for seed in (0, 1):
        write_run(tmp_path / f"good{seed}", "epn", seed)
    file = write_run(tmp_path / "bad", "epn", 2) / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    comparison = compare_runs(load_runs(tmp_path))
    assert comparison.groups == {"epn": ["good0", "good1"]}
    (warning,) = (line for line in comparison.warnings if line.startswith("bad: run.json is damaged"))
    assert warning.isprintable()
    assert key in warning
