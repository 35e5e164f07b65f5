"""One process at a time writes a run folder, whatever became of the one before. With real processes."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cl_powerprop import run_lock
from cl_powerprop.errors import RunFolderError
from cl_powerprop.run_lock import NAME, Holder, RunLock, is_lock

HOLD = """
import errno, fcntl, os, sys, time
from pathlib import Path
from cl_powerprop import run_lock
from cl_powerprop.errors import RunFolderError
run_lock._BEAT, run_lock._PATIENCE = 0.05, float(os.environ.get("PATIENCE", "1.0"))
folder, how, begin, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
if how == "files":
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = flock
time.sleep(max(0.0, begin - time.time()))
try:
    with run_lock.RunLock(folder).hold():
        forked = os.fork() if how == "forks" else None
        if not forked:  # the forked process says so, which proves that it has begun
            print("holds", flush=True)
        if forked == 0:
            os.close(1)
            time.sleep(5)
            os._exit(0)
        time.sleep(seconds)
except RunFolderError as error:
    print(error, flush=True)
"""


def start(folder: Path, how: str = "flock", begin: float = 0.0, seconds: float = 60.0) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", HOLD, str(folder), how, str(begin), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def holding(folder: Path, how: str = "flock") -> "Iterator[subprocess.Popen[str]]":
    process = start(folder, how)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_BEAT", 0.05)
    monkeypatch.setattr(run_lock, "_PATIENCE", 1.0)


@pytest.fixture(params=["flock", "files"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "files":

        def flock(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", flock)
    return str(request.param)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_of_twelve_processes_that_start_at_once_one_writes(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATIENCE", "60")  # twelve processes on few cores may be slow
    begin = time.time() + 4.0
    processes = [start(tmp_path / "run", how, begin) for _ in range(12)]
    try:
        said = {process.pid: process.stdout.readline() for process in processes if process.stdout is not None}
    finally:
        for process in processes:
            process.kill()
    rest = [process.communicate()[0] for process in processes]
    assert rest == [""] * 12
    (winner,) = [number for number, text in said.items() if text == "holds\n"]
    for number, text in said.items():
        if number != winner:
            assert f"run is being written by process {winner} on " in text
            assert ", since 2" in text


def test_it_is_free_again_after_use_and_after_an_error(tmp_path: Path, how: str) -> None:
    for _ in range(3):
        with contextlib.suppress(ZeroDivisionError), RunLock(tmp_path / "a" / "run").hold():
            assert all(map(is_lock, names(tmp_path / "a" / "run")))
            raise ZeroDivisionError
    assert len(names(tmp_path / "a" / "run")) == (how == "files")


def test_this_process_cannot_hold_it_twice(tmp_path: Path, how: str) -> None:
    with (
        RunLock(tmp_path).hold(),
        pytest.raises(RunFolderError, match=f"by process {os.getpid()} on"),
        RunLock(tmp_path).hold(),
    ):
        pass


def test_a_killed_process_frees_it_at_once(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "_PATIENCE", 1000.0)  # nobody waits
    with holding(tmp_path, how) as process:
        with pytest.raises(RunFolderError, match=f"process {process.pid} on"), RunLock(tmp_path).hold():
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with RunLock(tmp_path).hold():
            pass


def test_a_forked_process_does_not_hold_it(tmp_path: Path) -> None:
    with holding(tmp_path, "forks") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with RunLock(tmp_path).hold():
            pass


def test_nor_does_a_program_that_was_started(tmp_path: Path) -> None:
    with RunLock(tmp_path).hold():
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with RunLock(tmp_path).hold():
            pass
    finally:
        child.kill()
        child.wait()


def left(folder: Path, how: str, holder: Holder) -> None:
    """Leave a lock in a folder as a process that died."""
    folder.mkdir(exist_ok=True)
    (folder / (NAME if how == "flock" else f"{NAME}.3")).write_text(json.dumps(asdict(holder)))


@pytest.mark.parametrize("number", ["own", "another's"])
def test_the_number_of_a_dead_process_may_be_another_ones_now(
    tmp_path: Path, how: str, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "_PATIENCE", 1000.0)
    process = os.getpid() if number == "own" else os.getppid()
    left(tmp_path, how, replace(Holder(), process=process, started="17"))
    with RunLock(tmp_path).hold():
        pass


@pytest.mark.parametrize("elsewhere", [{"boot": "another"}, {"boot": "another", "host": "other"}, {"space": "pid:[1]"}])
def test_one_elsewhere_is_dead_when_it_shows_no_life(tmp_path: Path, how: str, elsewhere: dict[str, str]) -> None:
    left(tmp_path, how, replace(Holder(), **elsewhere))  # type: ignore[arg-type]
    begin = time.monotonic()
    with RunLock(tmp_path).hold():
        waits = how == "files" or "boot" in elsewhere  # the kernel's locks are those of all containers on it
        assert (time.monotonic() - begin > 0.9) == waits


def test_one_elsewhere_that_shows_life_is_left_alone(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with holding(tmp_path, how):
        path = next(path for path in tmp_path.iterdir() if path.read_bytes())
        path.write_text(json.dumps(asdict(replace(Holder(), boot="another", host="far\x1b[2J", process=7))))
        if how == "flock":  # which holds on the other machine only
            monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        with (
            pytest.raises(RunFolderError, match=r"by process 7 on far\?\[2J, since"),
            RunLock(tmp_path).hold(),
        ):
            pass


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\x00", b'{"process": 1e999}', b"[" * 5000, b"x" * 10**6])
def test_a_damaged_lock_is_free(tmp_path: Path, how: str, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    if how == "files":
        (tmp_path / f"{NAME}.1").write_bytes(content)
    with RunLock(tmp_path).hold():
        pass


def test_nothing_is_written_through_links(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    os.link(secret, folder / NAME)
    with RunLock(folder).hold():
        pass
    (folder / NAME).symlink_to(secret)
    with pytest.raises(RunFolderError, match="is a symbolic link; remove it"), RunLock(folder).hold():
        pass
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME)
    with pytest.raises(RunFolderError, match="is not a file; remove it"), RunLock(folder).hold():
        pass
    assert secret.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written: "), RunLock(tmp_path / "file" / "run").hold():
        pass


def test_a_holder_that_says_who_it_is_while_its_file_is_looked_at_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is empty when it is read, and no longer a moment later."""
    path, read = tmp_path / f"{NAME}.1", os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        content = read(descriptor, length, offset)
        path.write_text(json.dumps(asdict(Holder())))
        return content

    path.touch()
    monkeypatch.setattr(os, "pread", pread)
    assert run_lock._look(path) == (None, True)
