"""`scripts/chaos.py`: its short form, and that it sees what it is to see."""

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from .conftest import Finished

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_every_run_of_the_short_form_goes_on_to_the_same_result(tmp_path: Path) -> None:
    words = [sys.executable, SCRIPTS / "chaos.py", "--quick", "--out", tmp_path / "chaos"]
    ended = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    from disturb.table import read

    rows = read(tmp_path / "chaos" / "results.csv").values()
    kinds = {"kill", "operations", "power", "signal", "damage", "together"}
    assert kinds <= {row["case"] for row in rows}
    assert len(rows) > 25
    assert {row["outcome"] for row in rows} == {"identical"}


def change_number(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[-1] = lines[-1][:-2] + str((int(lines[-1][-2]) + 1) % 10) + "\n"
    file.write_text("".join(lines), encoding="utf-8")


def change_id(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([lines[0], *("other," + line.partition(",")[2] for line in lines[1:])]), encoding="utf-8")


def change_bit(file: Path) -> None:
    tensors = safetensors.numpy.load_file(file)
    name = next(name for name, each in tensors.items() if each.dtype.kind == "f" and each.ndim)
    tensors[name] = tensors[name].copy()
    tensors[name].view("int32").reshape(-1)[0] ^= 1
    safetensors.numpy.save_file(tensors, file)


def change_status(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | {"status": "failed"}), encoding="utf-8")


def change_time(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content | {"started": "2000-01-01", "run_id": "other"}), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("curves.csv", change_number, ["curves.csv differs"]),
        ("curves.csv", change_id, []),
        ("accuracy_matrix.csv", change_number, ["accuracy_matrix.csv differs"]),
        ("model.safetensors", change_bit, ["model.safetensors differs"]),
        ("model.safetensors", lambda file: file.write_bytes(b""), ["model.safetensors differs"]),
        ("weights.csv", Path.unlink, ["weights.csv is missing"]),
        (".run.json.1.part", Path.touch, [".run.json.1.part is left over"]),
        ("checkpoint.safetensors", Path.touch, ["checkpoint.safetensors is left over"]),
        ("run.json", change_status, ["run.json differs"]),
        ("run.json", change_time, []),
        ("run.json", lambda file: file.write_text("{"), ["run.json differs"]),
    ],
)
def test_a_difference_is_seen(name: str, change: Any, expected: list[str], finished: Finished, tmp_path: Path) -> None:
    from disturb.judging import differences

    undisturbed = finished("epn-split").path
    shutil.copytree(undisturbed, tmp_path / "run")
    assert differences(tmp_path / "run", undisturbed) == []
    change(tmp_path / "run" / name)
    assert differences(tmp_path / "run", undisturbed) == expected


def test_a_run_that_is_absent_is_a_difference(tmp_path: Path) -> None:
    from disturb.judging import differences

    assert differences(tmp_path / "none", tmp_path) == ["there is no run folder"]


WRITER = """
    import os
    from pathlib import Path

    from disturb.events import Board, Stop, Watch

    Watch._watch_training = lambda self: None
    board = Board()
    board.begin = 1
    watch = Watch(Path.cwd(), ["run"], board, {stop})
    watch.begin()
    os.mkdir("run")  # 0
    Path("outside").write_text("not counted")
    with open("run/a", "wb") as file:  # 1
        file.write(b"0123456789")
        file.flush()  # 2
        os.fsync(file.fileno())  # 3
    os.replace("run/a", "run/b")  # 4
    descriptor = os.open("run/b", os.O_WRONLY | os.O_APPEND)  # 5
    os.write(descriptor, b"more")  # 6
    Path("run/c").write_text("text")  # 7 and 8
    os.unlink("run/c")  # 9
    print(watch.trace)
"""


def write(folder: Path, stop: str) -> "subprocess.CompletedProcess[str]":
    folder.mkdir()
    words = [sys.executable, "-c", textwrap.dedent(WRITER).format(stop=stop)]
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted((folder / "run").iterdir())}


def test_operations_on_files_are_counted_and_stopped_before_they_happen(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", "None")
    assert whole.returncode == 0, whole.stderr
    names = ["mkdir run", "open run/a", "write run/a", "fsync run/a", "rename run/b", "open run/b", "write run/b"]
    assert whole.stdout.strip() == str([*names, "open run/c", "write run/c", "unlink run/c"])
    expected = {
        "1": {},
        "2": {"a": ""},
        "2, torn=True": {"a": "01234"},
        "3": {"a": "0123456789"},
        "5": {"b": "0123456789"},
        "6, torn=True": {"b": "0123456789mo"},
        "8": {"b": "0123456789more", "c": ""},
        "9": {"b": "0123456789more", "c": "text"},
    }
    for number, files in expected.items():
        stop = f"Stop(operation={number})"
        ended = write(tmp_path / stop, stop)
        assert ended.returncode == -9, ended.stderr
        assert content(tmp_path / stop) == files


def test_a_power_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    """The file's own ten bytes are synced, its name in the folder and what is added to it are not."""
    found = set()
    for seed in range(12):
        stop = f"Stop(operation=9, power={seed})"
        assert write(tmp_path / stop, stop).returncode == -9
        files = content(tmp_path / stop)
        assert len({"a", "b"} & set(files)) == 1
        kept = files.get("a", files.get("b", ""))
        assert "0123456789more".startswith(kept)
        assert len(kept) >= 10
        assert "text".startswith(files.get("c", ""))
        found.add(("a" in files, len(kept), "c" in files))
    assert len(found) > 4
    assert all(len({each[i] for each in found}) > 1 for i in range(3))


def test_each_kind_of_damage(tmp_path: Path) -> None:
    from disturb.performing import damage

    before, file = bytes(range(100)), tmp_path / "file"
    after = {}
    for how in ("zero", "half", "flip", "removed"):
        file.write_bytes(before)
        damage(file, how, random.Random(0))
        after[how] = file.read_bytes() if file.exists() else None
    assert (after["zero"], after["half"], after["removed"]) == (b"", before[:50], None)
    assert sum((a ^ b).bit_count() for a, b in zip(after["flip"] or b"", before, strict=True)) == 1


def test_the_table_counts_what_failed_and_goes_between_the_markers(tmp_path: Path) -> None:
    from disturb import table

    shared = {"case": "kill", "config": "epn", "point": "", "allowed": "20", "seconds": "", "last_lines": ""}
    rows = [
        shared | {"id": "kill/epn/0", "outcome": "identical", "repeated": "7"},
        shared | {"id": "kill/epn/1", "outcome": "curves.csv differs", "repeated": "20"},
        shared | {"id": "kill/epn/1", "outcome": "identical", "repeated": "19"},
        shared | {"id": "kill/epn/2", "outcome": "exit code 2", "repeated": ""},
    ]
    for row in rows:
        table.append(tmp_path / "results.csv", row)
    known = table.read(tmp_path / "results.csv")
    assert known["kill/epn/1"]["outcome"] == "identical"
    document = tmp_path / "document.md"
    document.write_text(f"before\n{table._BEGIN}\nold\n{table._END}\nafter\n", encoding="utf-8")
    table.put(document, table.tables(known.values()))
    text = document.read_text(encoding="utf-8")
    assert "| `epn` | 3 | 2 | at most 19 of 20 |  |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    with pytest.raises(ValueError, match="has no lines"):
        table.put(tmp_path / "results.csv", "")


def test_no_case_of_the_recorded_table_failed() -> None:
    page = (SCRIPTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.count("|") == 6]
    counts = {row[1]: row[2:4] for row in cells if row[2].isdigit()}
    assert all(cases == identical for cases, identical in counts.values()), counts
    assert len([name for name in counts if name.startswith("`")]) >= 12
