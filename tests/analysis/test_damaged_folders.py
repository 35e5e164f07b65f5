"""Whatever is wrong with one run folder costs that folder, or one of its files, and one line; never the comparison."""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cl_powerprop.analysis import compare_runs, load_runs, pairwise_table, summary_table
from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.comparison import Comparison
from cl_powerprop.analysis.report import render_report
from cl_powerprop.analysis.tables import markdown

from .folders import forgetful, write_run

pytestmark = pytest.mark.slow

TABLES = ("curves.csv", "capacity.csv", "reuse.csv", "mask_overlap.csv", "weights.csv")
FILES = ("run.json", "config.yaml", "accuracy_matrix.csv", *TABLES)
GOOD = ("epn-0", "naive-0", "naive-1")
VICTIM = "epn-1"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("good")
    for seed in (0, 1):
        write_run(root / f"naive-{seed}", "naive", seed, forgetful(3, seed), within=True)
        write_run(root / f"epn-{seed}", "epn", seed, forgetful(3, seed, 0.0), masked=True)
    return root


def copied(good: Path) -> Path:
    root = Path(tempfile.mkdtemp(dir=good.parent))
    shutil.copytree(good, root, dirs_exist_ok=True)
    return root


def everything_but_images(root: Path) -> Comparison:
    """Make all tables, charts and the report; a warning of numpy or pandas counts as a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_runs(root)
        assert {*GOOD} <= {*loaded.runs.index}
        assert len(loaded.problems) <= 1
        comparison = compare_runs(loaded, allow_mixed=True)
        summary, pairwise = summary_table(comparison), pairwise_table(comparison)
        text = markdown(comparison, summary, pairwise)
        render_report(comparison, summary, pairwise, comparison, []).encode()
    text.encode()
    for line in comparison.warnings:
        assert line.isprintable()
    assert {*GOOD} <= {*comparison.runs.runs.index}
    return comparison


Damage = Callable[[Path], object]


def written(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def edited(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def replaced(make: Damage) -> Damage:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


DAMAGES: dict[str, Damage] = {
    "missing": replaced(lambda path: None),
    "empty": written(b""),
    "one line": edited(lambda content: content.split(b"\n")[0] + b"\n"),
    "cut in a line": edited(lambda content: content[:-3]),
    "binary": written(bytes(range(256)) * 4),
    "zeros": written(bytes(1000)),
    "latin-1": edited(lambda content: content.replace(b"e", b"\xe9")),
    "a quote": edited(lambda content: content.replace(b",", b',"', 1)),
    "a folder": replaced(Path.mkdir),
    "a loop": replaced(lambda path: path.symlink_to(path)),
    "a dangling link": replaced(lambda path: path.symlink_to("nowhere")),
    "a pipe": replaced(os.mkfifo),
    "an extra column": edited(lambda content: b"".join(line + b",7\n" for line in content.splitlines())),
    "an extra field": edited(lambda content: content + b",".join([b"1"] * 20) + b"\n"),
    "a field less": edited(lambda content: b"\n".join(line.rpartition(b",")[0] for line in content.split(b"\n"))),
    "rows twice": edited(lambda content: content + content.partition(b"\n")[2]),
    "nan": edited(lambda content: content.replace(b"1", b"nan")),
    "text": edited(lambda content: content.replace(b"0", b"x")),
    "huge": edited(lambda content: content.replace(b"0", b"9" * 40)),
    "larger than floats": edited(lambda content: content.replace(b"0", b"1e999")),
    "negative": edited(lambda content: content.replace(b"0", b"-1")),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_costs_its_folder_at_most(good: Path, file: str, name: str) -> None:
    root = copied(good)
    DAMAGES[name](root / VICTIM / file)
    everything_but_images(root)


def test_a_run_that_diverged_in_its_first_epoch_is_what_it_is(good: Path, tmp_path: Path) -> None:
    """Its curves.csv is a header, and its accuracy matrix empty: nothing is damaged."""
    root = copied(good)
    record = {"status": "failed", "error": "the loss is nan\nin epoch 1", "trained_tasks": 0, "metrics": {}}
    write_run(root / "diverged", "epn", 2, masked=True, record=record)
    for file in ("accuracy_matrix.csv", "curves.csv", "capacity.csv", "reuse.csv"):
        path = root / "diverged" / file
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *(",," for _ in rows if file == "accuracy_matrix.csv")]) + "\n")
    done = compare([root], tmp_path / "out", quiet=True)
    assert done.comparison.runs.problems == []
    assert done.comparison.warnings == ["diverged: failed after 0 of 3 tasks (the loss is nan in epoch 1), left out"]
    assert list(done.comparison.runs.runs.index) == [*GOOD[:1], VICTIM, *GOOD[1:]]


def test_a_complete_run_whose_curves_are_a_header_is_drawn_from_its_matrix(good: Path, tmp_path: Path) -> None:
    root = copied(good)
    DAMAGES["one line"](root / VICTIM / "curves.csv")
    done = compare([root], tmp_path / "out", quiet=True)
    assert done.comparison.warnings == [
        f"{VICTIM}: curves.csv is damaged and left out (rows are missing)",
    ]
    assert "forgetting_curves.png" in done.files


@pytest.mark.parametrize("folder", [b"n\xffme", b"two\nlines"])
def test_a_folder_whose_name_cannot_be_printed(good: Path, folder: bytes) -> None:
    root = copied(good)
    (root / VICTIM).rename(Path(os.fsdecode(os.fsencode(root) + b"/" + folder)))
    comparison = everything_but_images(root)
    assert len(comparison.runs.runs) == 4


def test_a_folder_that_may_not_be_read_is_one_line(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copied(good)
    scan = os.scandir

    def refusing(path: Any) -> Iterator[os.DirEntry[str]]:  # file permissions do not hold for the superuser
        if str(path).endswith(VICTIM):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    loaded = load_runs(root)
    assert list(loaded.runs.index) == list(GOOD)
    assert loaded.problems == [f"{root.name}/{VICTIM}: cannot be read (Permission denied), left out"]


CONFIGS = {
    "billions": "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else '1'}]\n" for i in range(12)),
    "itself": "a: &a\n  b: *a\n",
    "a date": "optimizer:\n  lr: 2024-01-01\n  at: [2024-01-01]\n",
    "no date": "optimizer:\n  lr: 2024-99-99\n",
    "bytes": "optimizer:\n  lr: !!binary aGVsbG8=\n",
    "a set": "optimizer:\n  lr: !!set {a, b}\n",
    "odd keys": "optimizer:\n  1: 2\n  null: 3\n  [1, 2]: 4\n",
    "an object": "optimizer: !!python/object/apply:os.getcwd []\n",
    "not a bool": "optimizer:\n  lr: !!bool maybe\n",
    "not a time": "optimizer:\n  lr: !!timestamp noon\n",
    "a list": "optimizer: [1, {a: 2}]\n",
    "lines": 'optimizer:\n  lr: "one\\ntwo\\ud800"\n',
    "taken": "average_accuracy: good\nrun: 5\npath: here\nseconds: 4\nstatus: none\n",
    "a section that is none": "benchmark: 5\ndata: [1]\n",
    "cut": "defaults:\n  - base\noptimizer:\n  lr: 0.1\n",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_any_yaml(good: Path, name: str) -> None:
    root = copied(good)
    (root / VICTIM / "config.yaml").write_text(CONFIGS[name])
    everything_but_images(root)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(
            [10**400, 2**63, -1, 1e308, "complete", "\ud800", "a\nb", "\x1b[2J", "$x$", "[red]", "<b>", "|"]
        ),
        st.text(max_size=8),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(
    [
        *("schema_version", "status", "run_id", "benchmark", "scenario", "data", "strategy", "model", "alpha", "seed"),
        *("optimizer", "n_tasks", "trained_tasks", "device", "host", "git_commit", "started", "finished", "seconds"),
        *("peak_memory_mb", "metrics", "zero_forgetting_verified", "diverged_tasks", "messages", "error"),
        *("metrics/average_accuracy", "metrics/capacity_used", "metrics/seed", "metrics/new", "seconds/total"),
    ]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=keys, value=json_values)
@example("metrics/average_accuracy", float("inf"))
@example("finished", 5)
@example("strategy", "\ud800")
@example("seed", 10**400)
def test_any_value_in_run_json(good: Path, key: str, value: Any) -> None:
    root = copied(good)
    path = root / VICTIM / "run.json"
    content = json.loads(path.read_text())
    *outer, last = key.split("/")
    (content[outer[0]] if outer else content)[last] = value
    path.write_text(json.dumps(content))
    everything_but_images(root)
    shutil.rmtree(root)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(FILES),
    start=st.floats(0, 1),
    length=st.integers(0, 40),
    put=st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"", b",", b"\n", b'"', b"nan", b"inf", b"1e308", b"-1", b"9" * 30, b"\x00", b"\r", b"0"]),
    ),
)
def test_any_bytes_in_any_file(good: Path, file: str, start: float, length: int, put: bytes) -> None:
    root = copied(good)
    path = root / VICTIM / file
    content = path.read_bytes()
    at = int(start * len(content))
    path.write_bytes(content[:at] + put + content[at + length :])
    everything_but_images(root)
    shutil.rmtree(root)
