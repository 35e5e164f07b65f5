"""A run on a full disk ends with one line, says so in its folder, and goes on when there is room."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop.errors import StorageError
from cl_powerprop.experiment import run
from cl_powerprop.results.results import Results
from cl_powerprop.run_folder import CHECKPOINT, PREVIOUS_CHECKPOINT, RESERVE, ROWS
from cl_powerprop.run_lock import NAME as LOCK
from cl_powerprop.run_lock import RunLock

from .conftest import MASKED, Command, Finished, tiny_config, tree
from .test_resume import assert_same, config_of, cut_off

pytestmark = pytest.mark.slow

NAME = "epn-momentum-frozen-biases"


class Disk:
    """A disk that is full from some moment on, but for the room of the run's reserve."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        write, sync = os.write, os.fsync

        def refuse() -> None:
            if self.is_full and (folder / RESERVE).exists():
                raise OSError(errno.ENOSPC, "No space left on device")

        def watched_write(*of: Any) -> int:
            refuse()
            return write(*of)

        def watched_sync(descriptor: int) -> None:
            refuse()
            sync(descriptor)

        monkeypatch.setattr(os, "write", watched_write)
        monkeypatch.setattr(os, "fsync", watched_sync)


@pytest.mark.parametrize("task", [1, 2])
def test_it_ends_in_one_line_and_goes_on_with_the_same_numbers(
    task: int, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    folder = tmp_path / "run"
    config = config_of(NAME)
    config.checkpoint.max_share = 1.0
    trained = Results.trained
    with monkeypatch.context() as patch:
        disk = Disk(folder, patch)

        def fill(results: Results, *of: Any) -> None:
            disk.is_full = results.trained_tasks == task
            trained(results, *of)

        patch.setattr(Results, "trained", fill)
        with pytest.raises(StorageError, match=r"run cannot be written: the disk is full; make room, "):
            run(config, folder)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "failed"
    assert "the disk is full" in record["error"]
    assert not [name for name in tree(folder) if name.endswith(".part") or name == RESERVE]
    assert command("resume", folder) == 0
    assert_same(folder, finished(NAME).path)


def test_a_disk_that_is_full_from_the_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="the disk is full"):
            run(tiny_config("strategy=naive"), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.part"))
    assert run(tiny_config("strategy=naive"), tmp_path / "run").record["status"] == "complete"


def test_what_a_kill_after_the_end_left_is_cleared_at_the_next_look(tmp_path: Path, command: Command) -> None:
    folder = run(tiny_config("strategy=naive"), tmp_path / "run").path
    whole = tree(folder)
    left = (CHECKPOINT, PREVIOUS_CHECKPOINT, ROWS, RESERVE, ".run.json.0123.part")
    for again in (
        lambda: command("resume", folder),
        lambda: run(tiny_config("strategy=naive"), folder),
    ):
        for name in left:
            (folder / name).write_bytes(b"left")
        with RunLock(folder).hold():  # as if it were at its end
            command("resume", folder)
            assert {name for name in tree(folder) if name in left} == set(left)
        again()
        assert tree(folder) == whole
        (folder / LOCK).write_bytes(b"left")  # alone: the kill came as it was about to be removed
        again()
        assert tree(folder) == whole


def test_a_run_that_begins_again_has_no_rows_of_the_first_time(
    finished: Finished, tmp_path: Path, command: Command
) -> None:
    with cut_off(task=1, epoch=1):
        run(config_of(NAME), tmp_path / "run")
    for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
        (tmp_path / "run" / name).write_bytes(b"")
    assert command("resume", "run") == 0
    files, expected = tree(tmp_path / "run"), tree(finished(NAME).path)
    assert files.keys() == expected.keys()
    for name in ("accuracy_matrix.csv", "capacity.csv", "reuse.csv"):
        assert files[name] == expected[name]
    assert files["curves.csv"].count(b"\n") == expected["curves.csv"].count(b"\n")


def test_a_run_syncs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a checkpoint after each task: three for it, and about as many at the beginning and at the end as files."""
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), sync(descriptor)))
    counts = []
    for tasks in (3, 6):
        synced.clear()
        words = ("strategy=packnet", *MASKED, f"benchmark.n_tasks={tasks}", "checkpoint.every_epochs=null")
        run(tiny_config(*words, "checkpoint.every_seconds=null", "checkpoint.max_share=1"), tmp_path / str(tasks))
        counts.append(len(synced))
    assert counts[1] - counts[0] <= 3 * 5, "three more tasks; a model file after each, too"
