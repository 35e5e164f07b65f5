"""Small files laid out and pickled as CIFAR's: by Python 2, protocol 2, written here opcode by opcode."""

import hashlib
import io
import pickletools
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cl_powerprop.data.cifar import CIFAR


def text(value: bytes) -> bytes:
    """A string of Python 2: SHORT_BINSTRING, or BINSTRING."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def number(value: int) -> bytes:
    return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)


def array(values: NDArray[np.uint8], code: bytes = b"u1", fortran: bool = False) -> bytes:
    """numpy's way: _reconstruct(ndarray, (0,), "b"), then a state (1, shape, dtype, fortran, content)."""
    shape = b"(" + b"".join(map(number, values.shape)) + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(code) + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    content = text(values.tobytes("F" if fortran else "C"))
    return made + b"(" + number(1) + shape + dtype + (b"\x88" if fortran else b"\x89") + content + b"tb"


def labels(values: list[int]) -> bytes:
    return b"](" + b"".join(map(number, values)) + b"e"


def pickled(entries: dict[bytes, bytes]) -> bytes:
    """A dictionary, whose values are pickled already."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u."


def batch(images: NDArray[np.uint8], of_each: list[int], label_key: bytes = b"labels") -> bytes:
    entries = {
        b"batch_label": text(b"training batch 1 of 5"),
        label_key: labels(of_each),
        b"data": array(images.reshape(len(images), -1)),
        b"filenames": b"](" + text(b"leptodactylus_pentadactylus_s_000004.png") + b"e",
    }
    content = pickled(entries)
    pickletools.dis(content, out=io.StringIO())  # well-formed
    return content


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def small_images(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def small_labels(kind: type[CIFAR], count: int) -> list[int]:
    return [row % int(kind.classes or 0) for row in range(count)]


def small_files(kind: type[CIFAR]) -> dict[str, bytes]:
    """Twenty images in each file of CIFAR-10, 200 of CIFAR-100."""
    count = 2 * int(kind.classes or 0)
    files = {
        name: batch(small_images(count, seed), small_labels(kind, count), kind.label_key)
        for seed, name in enumerate([*kind.train_files, *kind.test_files])
    }
    return files | dict.fromkeys(kind.other_files, pickled({b"label_names": labels([])}))


def archive(kind: type[CIFAR], files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as content:
        for name, data in {"readme.html": b"<p>", **files}.items():
            member = tarfile.TarInfo(f"{kind.folder}/{name}")
            member.size = len(data)
            content.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def publish(kind: type[CIFAR], monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> bytes:
    """Make the files the published ones, and return the archive."""
    for group in ("train_files", "test_files", "other_files"):
        published: Any = getattr(kind, group)
        monkeypatch.setattr(kind, group, {name: md5(files[name]) for name in published})
    content = archive(kind, files)
    monkeypatch.setattr(kind, "archive_md5", md5(content))
    return content


def write(kind: type[CIFAR], root: Path, files: dict[str, bytes]) -> None:
    (root / kind.folder).mkdir()
    for name, content in files.items():
        (root / kind.folder / name).write_bytes(content)
