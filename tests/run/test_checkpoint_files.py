"""Files of checkpoints: two generations, and no byte that can change unnoticed."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from cl_powerprop import checkpoint_files as files
from cl_powerprop.errors import RunFolderError


def write(folder: Path, value: int) -> None:
    files.write(
        folder, {"weight": torch.full((3, 2), float(value)), "count": torch.tensor(value)}, {"state": str(value)}
    )


def read(folder: Path) -> tuple[int | None, list[str]]:
    told: list[str] = []
    found = files.read(folder, told.append)
    if found is None:
        return None, told
    tensors, metadata = found
    assert tensors["weight"].tolist() == [[int(metadata["state"])] * 2] * 3
    return int(tensors["count"]), told


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert read(tmp_path) == (None, [])
    for value in (1, 2, 3):
        write(tmp_path, value)
        assert read(tmp_path) == (value, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == [files.PREVIOUS, files.FILE]
    (tmp_path / files.FILE).unlink()
    assert read(tmp_path) == (2, []), "a kill between the two renames leaves this, which is no damage"


def test_the_checksum_is_sha256_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    write(tmp_path, 1)
    content = (tmp_path / files.FILE).read_bytes()
    with safetensors.safe_open(tmp_path / files.FILE, "pt") as opened:  # it is an ordinary safetensors file
        metadata = opened.metadata()
    assert metadata["format"] == "4"
    assert content.count(metadata["sha256"].encode()) == 1
    assert metadata["sha256"] == hashlib.sha256(content.replace(metadata["sha256"].encode(), b"0" * 64)).hexdigest()


def test_every_flipped_bit_every_cut_and_every_addition_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    path = tmp_path / files.FILE
    content = path.read_bytes()
    damaged = [
        content[:index] + bytes([content[index] ^ 1 << index % 8]) + content[index + 1 :]
        for index in range(len(content))
    ]
    damaged += [content[:length] for length in range(0, len(content), 7)] + [content + b"\0", b"\0" * len(content)]
    for each in damaged:
        path.write_bytes(each)
        value, told = read(tmp_path)
        assert value == 1
        assert len(told) == 1
        assert told[0].endswith("; the run goes on from the checkpoint before")
        assert "\n" not in told[0]
    (tmp_path / files.PREVIOUS).write_bytes(b"")
    value, told = read(tmp_path)
    assert value is None
    assert len(told) == 2


def test_a_damaged_one_never_takes_the_place_of_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    (tmp_path / files.FILE).write_bytes(b"damaged")
    monkeypatch.setattr(files, "_written", set())  # as in another process
    replace, kept = os.replace, []

    def watch(source: Path, target: Path) -> None:
        replace(source, target)
        kept.append(files.read(tmp_path, lambda _: None))

    monkeypatch.setattr(os, "replace", watch)
    write(tmp_path, 3)
    assert [found is not None and int(found[0]["count"]) for found in kept] == [1, 3]
    (tmp_path / files.FILE).unlink()
    assert read(tmp_path) == (1, [])


@pytest.mark.parametrize("kind", ["list", "huge header"])
def test_what_is_no_checkpoint_at_all_is_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / files.FILE
    text = b"[]" if kind == "list" else b"{}"
    path.write_bytes((2**62 if kind == "huge header" else len(text)).to_bytes(8, "little") + text)
    value, told = read(tmp_path)
    assert value is None
    assert len(told) == 1


@pytest.mark.parametrize("name", [files.FILE, files.PREVIOUS])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "EACCES", "EIO", "memory"])
def test_one_that_cannot_be_read_just_now_is_refused_and_stays(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    path = tmp_path / name
    if name == files.PREVIOUS:
        (tmp_path / files.FILE).write_bytes(b"damaged")
    if kind in ("link", "pipe", "folder"):
        path.rename(tmp_path / "other")
        make: dict[str, Callable[[], object]] = {"link": lambda: path.symlink_to("other"), "folder": path.mkdir}
        make.get(kind, lambda: os.mkfifo(path))()
    else:
        opened = files.open_file

        def refuse(file: Path, most: int) -> object:
            if file != path:
                return opened(file, most)
            raise MemoryError if kind == "memory" else OSError(getattr(errno, kind), "it is so")

        monkeypatch.setattr(files, "open_file", refuse)
    before = sorted(each.name for each in tmp_path.iterdir())
    with pytest.raises(RunFolderError, match=f"{name} cannot be read: .+; mend that, and"):
        files.read(tmp_path, pytest.fail, sets_aside=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == before


def test_damaged_ones_are_set_aside_if_the_run_is_to_go_on(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    (tmp_path / files.FILE).write_bytes(b"first")
    told: list[str] = []
    found = files.read(tmp_path, told.append, sets_aside=True)
    assert found is not None
    assert found[1]["state"] == "1"
    (line,) = told
    assert line.endswith(
        "; it is called checkpoint.damaged.safetensors now; the run goes on from the checkpoint before"
    )
    (tmp_path / files.PREVIOUS).write_bytes(b"second")
    assert files.read(tmp_path, told.append, sets_aside=True) is None
    reason = "it is no safetensors file, or its end is missing"
    kept = "it is called checkpoint.previous.damaged.safetensors now"
    assert told[1:] == [f"{tmp_path / files.PREVIOUS} is damaged: {reason}; {kept}"]
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert contents == {files.DAMAGED[files.FILE]: b"first", files.DAMAGED[files.PREVIOUS]: b"second"}


def test_files_of_earlier_formats_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    state = {"state": json.dumps({"format": 3})}
    safetensors.torch.save_file({"weight": torch.ones(2)}, tmp_path / files.FILE, metadata=state)
    found = files.read(tmp_path, pytest.fail)
    assert found is not None
    assert found[0]["weight"].tolist() == [1.0, 1.0]
    assert found[1] == state


def test_on_a_full_disk_the_previous_one_makes_room_and_the_last_one_is_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    whole = files.write_file

    def write_if_room(path: Path, *content: object, **options: object) -> None:
        if len(list(tmp_path.iterdir())) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, *content, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "write_file", write_if_room)
    room = 1
    write(tmp_path, 3)
    assert read(tmp_path) == (3, [])
    room = 0
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 4)
    assert read(tmp_path) == (3, [])
