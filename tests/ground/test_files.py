"""Reading and writing the files of a run folder: whole or not at all, and never through a link."""

import errno
import os
from pathlib import Path

import pytest

from cl_powerprop.errors import FileError
from cl_powerprop.files import append, is_file, parts, read_file, write_file


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write_file(file, b"old")
    write_file(file, [b"n", memoryview(b"ew")])
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_keeps_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def content() -> object:
        yield b"half"
        raise OSError(28, "No space left on device")

    file = tmp_path / "run.json"
    write_file(file, b"old")
    with pytest.raises(OSError, match="No space"):
        write_file(file, content())  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_both_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    write_file(tmp_path / "run.json", b"x")
    assert calls == ["file", "rename", "folder"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "run.json.part", ".run.json.part"):
        (folder / name).symlink_to(secret)
    write_file(folder / "run.json", b"theirs")
    assert secret.read_bytes() == b"mine"
    assert (folder / "run.json").read_bytes() == b"theirs"
    assert is_file(folder / "run.json")


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe", "device"])
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        target = {"link": tmp_path / "other", "dangling link": tmp_path / "absent", "device": Path("/dev/zero")}[kind]
        (tmp_path / "other").write_bytes(b"secret")
        path.symlink_to(target)
    assert not is_file(path)
    with pytest.raises(FileError, match=r"run\.json is (a symbolic link|not a file)"):
        read_file(path)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(b"12345")
    assert read_file(file, most=5) == b"12345"
    with pytest.raises(FileError, match=r"run\.json is too large: 5 bytes, of at most 4"):
        read_file(file, most=4)
    with file.open("wb") as sparse:
        sparse.truncate(10 * 2**30)
    with pytest.raises(FileError, match="too large"):
        read_file(file)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent")


def test_parts_of_interrupted_writes_are_found(tmp_path: Path) -> None:
    for name in (".run.json.0123.part", "curves.csv.part", "curves.csv"):
        (tmp_path / name).touch()
    (tmp_path / "folder.part").mkdir()
    assert sorted(path.name for path in parts(tmp_path)) == [".run.json.0123.part", "curves.csv.part"]


def test_what_is_added_stands_behind_the_rest_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "curves.csv"
    append(file, b"one,")
    append(file, b"two", sync=True)
    assert file.read_bytes() == b"one,two"
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: whole(descriptor, content[:2]))
    append(file, b", three")
    assert file.read_bytes() == b"one,two, three"

    def half(descriptor: int, content: memoryview) -> int:
        if len(content) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(descriptor, content[:2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        append(file, b", four")
    assert file.read_bytes() == b"one,two, three"


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_nothing_is_added_to_what_is_elsewhere_too(tmp_path: Path, kind: str) -> None:
    secret, path = tmp_path / "secret", tmp_path / "curves.csv"
    secret.write_bytes(b"mine")
    {
        "link": lambda: path.symlink_to(secret),
        "hard link": lambda: os.link(secret, path),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }[kind]()
    with pytest.raises(FileError, match="not a file"):
        append(path, b"theirs")
    assert secret.read_bytes() == b"mine"
