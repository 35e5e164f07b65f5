"""Tables that grow: rows are added, never rewritten, and each of file and copy can be made again from the other."""

import errno
import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl_powerprop.analysis.run_tables import parse_matrix
from cl_powerprop.errors import FileError, RunFolderError, StorageError
from cl_powerprop.evaluation.metrics import average_forgetting
from cl_powerprop.results.evaluations import Evaluations
from cl_powerprop.results.tables import CAPACITY, CURVES, Tables, read_rows
from cl_powerprop.run_folder import PREVIOUS_CHECKPOINT, ROWS, RunFolder

HEADER = ("task", "layer")


def filled(folder: Path) -> tuple[Tables, dict[str, Any]]:
    """Tables with a checkpoint between their rows."""
    tables = Tables(RunFolder(folder))
    tables.add(CURVES, HEADER, [[0, "a"], [1, 'b "quoted",\nin two lines']])
    tables.flush()
    tables.add(CAPACITY, HEADER, [[0, "é"]])
    tables.add(CURVES, HEADER, [[2, float("nan")]])
    state = tables.state_dict()
    tables.add(CURVES, HEADER, [[3, "later"]])
    tables.add("reuse.csv", HEADER, [[3, "later"]])
    tables.flush()
    return tables, json.loads(json.dumps(state))


CURVES_THEN = b'task,layer\n0,a\n1,"b ""quoted"",\nin two lines"\n2,\n'


def test_rows_are_added_and_a_checkpoint_knows_what_there_was(tmp_path: Path) -> None:
    _, state = filled(tmp_path)
    assert (tmp_path / CURVES).read_bytes() == CURVES_THEN + b"3,later\n"
    assert state[CURVES] == [len(CURVES_THEN), hashlib.sha256(CURVES_THEN).hexdigest()]
    assert b"later" not in (tmp_path / ROWS).read_bytes()


def test_nothing_is_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a row does not depend on how many there are."""
    tables = Tables(RunFolder(tmp_path))
    written: list[int] = []
    whole = os.write
    monkeypatch.setattr(os, "write", lambda *of: (written.append(len(of[1])), whole(*of))[1])
    for task in range(50):
        tables.add(CURVES, HEADER, [[task, "x"]])
        tables.flush()
        tables.state_dict()
    row = len(b"10,x\n")
    assert max(written[2:]) <= row + len(b"curves.csv 5\n")
    assert len(written) == 100


@pytest.mark.parametrize("damage", ["no file", "cut", "flipped", "empty", "link", "hard link", "pipe", "no copy"])
@pytest.mark.parametrize("damaged", [CURVES, ROWS])
def test_each_is_made_again_from_the_other(
    tmp_path: Path, damaged: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    _, state = filled(folder)
    path, outside = folder / damaged, tmp_path / "outside"
    content = path.read_bytes()
    outside.write_bytes(content)
    flipped = content[:20] + bytes([content[20] ^ 1]) + content[21:]
    path.unlink()
    if damage == "link":
        path.symlink_to(outside)
    elif damage == "hard link":
        os.link(outside, path)
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage != "no file":
        path.write_bytes({"cut": content[: len(content) // 2], "flipped": flipped}.get(damage, b""))
    if damage == "no copy" and damaged == CURVES:
        (folder / ROWS).unlink()
        with pytest.raises(RunFolderError, match=r"curves\.csv is damaged, and so is its copy in checkpoint\.rows"):
            Tables(RunFolder.reopen(folder)).find(state)
        return
    again = Tables(RunFolder.reopen(folder))
    contents = again.find(state)
    assert contents == {CURVES: CURVES_THEN, CAPACITY: "task,layer\n0,é\n".encode()}
    again.restore(contents)
    assert not (folder / "reuse.csv").exists()
    again.add(CURVES, HEADER, [[4, "new"]])
    after = again.state_dict()
    assert (folder / CURVES).read_bytes() == CURVES_THEN + b"4,new\n"
    assert outside.read_bytes() == content
    for name in (CURVES, ROWS):  # both are whole again
        before = (folder / name).read_bytes()
        (folder / name).unlink()
        assert Tables(RunFolder.reopen(folder)).find(after)[CURVES] == CURVES_THEN + b"4,new\n"
        (folder / name).write_bytes(before)


def test_random_damage_to_the_copy_is_survived(tmp_path: Path) -> None:
    _, state = filled(tmp_path)
    content = (tmp_path / ROWS).read_bytes()
    draws = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(draws.randint(1, 8)):
            damaged[draws.randrange(len(damaged))] = draws.randrange(256)
        (tmp_path / ROWS).write_bytes(damaged[: draws.randint(0, len(damaged))])
        assert Tables(RunFolder.reopen(tmp_path)).find(state)[CURVES] == CURVES_THEN
    (tmp_path / ROWS).write_bytes(b"curves.csv " + b"9" * 5000 + b"\n")
    (tmp_path / CURVES).unlink()
    with pytest.raises(RunFolderError):
        Tables(RunFolder.reopen(tmp_path)).find(state)


def test_a_table_that_others_have_changed_is_made_again_at_the_end(tmp_path: Path) -> None:
    tables, _ = filled(tmp_path)
    (tmp_path / CURVES).unlink()
    tables.add(CURVES, HEADER, [[4, "last"]])
    tables.finish()
    assert (tmp_path / CURVES).read_bytes() == CURVES_THEN + b"3,later\n4,last\n"


def test_a_link_in_place_of_a_table_is_not_written_through(tmp_path: Path) -> None:
    tables = Tables(RunFolder(tmp_path / "run"))
    (tmp_path / "secret").write_bytes(b"mine")
    (tmp_path / "run" / CURVES).symlink_to(tmp_path / "secret")
    tables.add(CURVES, HEADER, [[0, "theirs"]])
    with pytest.raises(FileError):
        tables.flush()
    assert (tmp_path / "secret").read_bytes() == b"mine"


def test_on_a_full_disk_rows_are_kept_and_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, _ = filled(tmp_path)
    tables.add(CURVES, HEADER, [[4, "kept"]])
    whole = os.write

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(2):
            with pytest.raises(StorageError, match="the disk is full; make room, and the run can go on"):
                tables.state_dict()
    (tmp_path / PREVIOUS_CHECKPOINT).touch()
    (tmp_path / "checkpoint.safetensors").touch()

    def tight(*of: Any) -> int:
        return full() if (tmp_path / PREVIOUS_CHECKPOINT).exists() else whole(*of)

    monkeypatch.setattr(os, "write", tight)
    state = tables.state_dict()
    assert (tmp_path / CURVES).read_bytes() == CURVES_THEN + b"3,later\n4,kept\n"
    assert Tables(RunFolder.reopen(tmp_path)).find(state)[CURVES].endswith(b"4,kept\n")


def test_an_earlier_version_counted_rows(tmp_path: Path) -> None:
    (tmp_path / CURVES).write_text("task,layer\n0,a\n1,b\n2,c\n")
    tables = Tables(RunFolder.reopen(tmp_path))
    assert tables.find({CURVES: tables.adopt(CURVES, 2)}) == {CURVES: b"task,layer\n0,a\n1,b\n"}
    with pytest.raises(RunFolderError, match=r"curves\.csv has 3 rows of the 4 that it had"):
        tables.adopt(CURVES, 4)
    with pytest.raises(RunFolderError, match="has 0 rows of the 1"):
        tables.adopt(CAPACITY, 1)
    assert read_rows(CURVES, b"a,b\n1,2\n", lambda row: int(row["b"])) == [2]
    with pytest.raises(RunFolderError, match=r"curves\.csv cannot be read: KeyError: 'c'"):
        read_rows(CURVES, b"a,b\n1,2\n", lambda row: int(row["c"]))


# --- evaluations ----------------------------------------------------------------------------------------------------


def test_evaluations_are_those_that_were_entered_also_after_a_checkpoint(tmp_path: Path) -> None:
    """Compared with the whole matrix, kept in the plainest way."""
    draws = np.random.default_rng(0)
    tasks, folder = 6, RunFolder(tmp_path)
    matrix, rows = np.full((tasks, tasks), np.nan), []
    evaluations = Evaluations(tasks)
    for task in range(tasks):
        if task == 2:  # learned together with the next one
            continue
        within = {index: float(draws.random()) for index in range(task + 1)}
        evaluations.add_within(within, {})
        rows.append([within.get(index, np.nan) for index in range(tasks)])
        tested = [index for index in range(task + 1) if draws.random() < 0.8 or index == task]
        accuracies = {index: float(draws.random()) for index in tested}
        evaluations.add(task, accuracies, dict.fromkeys(tested, "hash"))
        matrix[task, tested] = [accuracies[index] for index in tested]
        rows.append(matrix[task].tolist())
        np.testing.assert_array_equal(
            evaluations.average_forgetting(task + 1), average_forgetting(matrix[: task + 1, : task + 1])
        )
        evaluations.write(folder, list("abcdef"))
        if task == 3:
            state, evaluations = evaluations.state_dict(), Evaluations(tasks)
            evaluations.load_state_dict(state)
    np.testing.assert_array_equal(evaluations.matrix, matrix)
    measured = evaluations.measurements()
    np.testing.assert_array_equal(measured.evaluations, rows)
    assert measured.learned == (1, 3, 5, 5, 7, 9)
    read = np.genfromtxt(tmp_path / "accuracy_matrix.csv", delimiter=",", skip_header=1)
    np.testing.assert_array_equal(read, matrix)


def test_the_matrix_has_a_row_for_each_task_so_far_and_at_the_end_for_all(tmp_path: Path) -> None:
    evaluations, folder, file = Evaluations(3), RunFolder(tmp_path), tmp_path / "accuracy_matrix.csv"
    evaluations.write(folder, ["a", "b", "c"])
    assert not file.exists()
    evaluations.add(0, {0: 0.5}, {0: "x"})
    evaluations.write(folder, ["a", "b", "c"])
    assert file.read_text() == "a,b,c\n0.5,,\n"
    evaluations.add(0, {0: 0.75}, {0: "x"})  # another part of the task
    evaluations.write(folder, ["a", "b", "c"])
    assert file.read_text() == "a,b,c\n0.75,,\n"
    evaluations.add(1, {0: 0.25, 1: 1.0}, {0: "x", 1: "y"})
    evaluations.write(folder, ["a", "b", "c"])
    assert file.read_text() == "a,b,c\n0.75,,\n0.25,1.0,\n"
    evaluations.write(folder, ["a", "b", "c"], whole=True)
    assert file.read_text() == "a,b,c\n0.75,,\n0.25,1.0,\n,,\n"


def test_a_run_that_goes_on_has_fewer_rows_for_compare_to_read() -> None:
    content = b"a,b,c\n0.75,,\n0.25,1.0,\n"
    frame = parse_matrix(content, 3, is_complete=False)
    assert frame["accuracy"].tolist() == [0.75, 0.25, 1.0]
    assert frame["trained_tasks"].tolist() == [1, 2, 2]
    with pytest.raises(ValueError, match="2 rows for 3 tasks"):
        parse_matrix(content, 3)
    for damaged in (content + b",,\n,,\n", b"a,b,c\n,,\n" + b"\n" * 2):
        with pytest.raises(ValueError, match="row"):
            parse_matrix(damaged, 3, is_complete=False)
    with pytest.raises(ValueError, match="columns"):
        parse_matrix(b"a,b,c\n", 99_999_999, is_complete=False)
