"""Data files from strangers: bombs, lies, links, pipes and noise end in one line, in little time and memory."""

import gzip
import io
import os
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cl_powerprop.data.arrays import Arrays, ArraysConfig
from cl_powerprop.data.folder import FolderConfig
from cl_powerprop.data.idx import parse_idx
from cl_powerprop.data.mnist import MNIST
from cl_powerprop.data.pictures import find_pictures
from cl_powerprop.errors import ConfigurationError, DataError

from .omniglot_zips import small_dataset, small_files, write_zips

SECONDS = 20  # far more than a refusal takes on a busy machine
KILOBYTES = 700_000  # the tests themselves make files of 300 MB


@pytest.fixture(autouse=True)
def little_time_and_memory() -> Iterator[None]:
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.perf_counter() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES


def refused(read: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as raised:
        read()
    message = str(raised.value)
    assert message.isprintable()
    assert len(message) < 500
    return message


def read_or_refused(read: Callable[[], Any]) -> None:
    """Read, or be told in one line why not."""
    told = "nothing"
    try:
        read()
    except DataError as error:
        told = str(error)
    assert told.isprintable()


def gzip_bomb(megabytes: int) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**20)
    return b"".join([*(deflate.compress(block) for _ in range(megabytes)), deflate.flush()])


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    return folder


def test_a_gzip_bomb_is_not_unpacked(mnist_folder: Path) -> None:
    (mnist_folder / "train-images-idx3-ubyte.gz").write_bytes(gzip_bomb(300))
    assert "unpacks to more than 47,040,016 bytes" in refused(lambda: MNIST().read(mnist_folder.parents[1]))


def test_a_file_that_is_too_large_is_not_read(mnist_folder: Path) -> None:
    for name in ("train-images-idx3-ubyte.gz", "train-images-idx3-ubyte"):
        with (mnist_folder / name).open("wb") as file:
            file.truncate(10 * 10**9)
        assert "too large" in refused(lambda: MNIST().read(mnist_folder.parents[1]))


@pytest.mark.parametrize(
    "shape",
    [
        (65536,) * 4,
        (2**32 - 1,) * 4,
        (0, 2**32 - 1, 2**32 - 1),
        (1,) * 255,
        (2**16, 2**16, 2**16, 2**16, 0),
        (2**32 - 1,),
    ],
    ids=str,
)
def test_an_idx_header_of_absurd_sides_makes_no_array(shape: tuple[int, ...]) -> None:
    content = b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    refused(lambda: parse_idx(content, "a"))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("make", [pipe, device, folder, loop])
def test_what_is_no_file_is_not_read(make: Callable[[Path], None], mnist_folder: Path, tmp_path: Path) -> None:
    make(mnist_folder / "train-images-idx3-ubyte.gz")
    refused(lambda: MNIST().read(tmp_path))
    MNIST().status(tmp_path)
    (tmp_path / "omniglot-py").mkdir()
    write_zips(tmp_path, small_files())
    (tmp_path / "omniglot-py" / "images_background.zip").unlink()
    make(tmp_path / "omniglot-py" / "images_background.zip")
    refused(lambda: small_dataset().read(tmp_path))
    make(tmp_path / "arrays.npz")
    refused(lambda: Arrays().images(tmp_path, ArraysConfig(name="arrays")))
    (tmp_path / "train" / "a").mkdir(parents=True)
    make(tmp_path / "train" / "a" / "b.png")
    refused(lambda: find_pictures(tmp_path / "train", size=8, resize=8).read([0]))


def test_data_may_be_links_to_files(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    (tmp_path / "train" / "a" / "b.png").symlink_to(tmp_path / "one.png")
    assert find_pictures(tmp_path / "train", size=8, resize=8).read([0]).shape == (1, 3, 8, 8)


def test_a_zip_bomb_among_drawings_is_not_unpacked(tmp_path: Path) -> None:
    files = small_files()
    name = next(iter(files))
    drawing = next(entry for entry in files[name] if entry.endswith(".png"))
    files[name][drawing] = bytes(300 * 2**20)
    write_zips(tmp_path, files)
    path = tmp_path / "omniglot-py" / name
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(tmp_path / "small.zip", "w", zipfile.ZIP_DEFLATED) as small:
        for entry in stored.namelist():
            small.writestr(entry, stored.read(entry))
    os.replace(tmp_path / "small.zip", path)
    assert "has more than 65,536 bytes" in refused(lambda: small_dataset().read(tmp_path))
    assert not small_dataset()._is_whole(small_dataset().zips[0], path)


def test_a_member_of_a_zip_never_leaves_the_folder(tmp_path: Path) -> None:
    """Nothing is written by a member's name; other members are not even read."""
    files = small_files()
    name = next(iter(files))
    files[name] |= {"../../outside.png": b"x", "/tmp/outside.png": b"x", "images_background/../../out.png": b"x"}
    write_zips(tmp_path / "root", files)
    small_dataset().read(tmp_path / "root")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]
    assert all(path.suffix in ("", ".zip", ".npz") for path in (tmp_path / "root").rglob("*"))


IMAGES = np.zeros((10, 4, 4), dtype=np.uint8)
LABELS = np.arange(10) % 2


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{"train_images": IMAGES, "train_labels": LABELS} | arrays)
    return path


def members(path: Path, **contents: bytes) -> Path:
    """A file whose members are these bytes."""
    npz(path)
    with zipfile.ZipFile(path) as whole:
        kept = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as changed:
        for name, content in (kept | {f"{name}.npy": content for name, content in contents.items()}).items():
            changed.writestr(name, content)
    return path


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def read_arrays(root: Path) -> Any:
    return Arrays().images(root, ArraysConfig(name="arrays"))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (IMAGES.astype(np.float64), "float64; they must be uint8, from 0 to 255, such as"),
        (IMAGES.astype(np.float64) * np.nan, "float64"),
        (IMAGES.astype(np.uint16), "uint16"),
        (IMAGES.astype(np.complex64), "complex64"),
        (IMAGES.astype(object), "object"),
        (IMAGES.astype("datetime64[s]"), "datetime64"),
        (np.zeros((10, 4, 4), dtype=[("f" * 1000, "u1")] * 1), "must be uint8"),
        (np.zeros((10, 0, 4), dtype=np.uint8), "shape"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value))[:20],
)
def test_images_of_other_types_are_one_line(images: Any, said: str, tmp_path: Path) -> None:
    npz(tmp_path / "arrays.npz", train_images=images)
    assert said in refused(lambda: read_arrays(tmp_path))


@pytest.mark.parametrize(
    "labels",
    [
        *(LABELS - 1, LABELS * 10**9, np.full(10, 2**64 - 1, dtype=np.uint64), LABELS * 1.0, LABELS.astype(object)),
        *(LABELS[:9], LABELS[:, None], LABELS.astype(bool), LABELS.astype(str)),
    ],
    ids=lambda labels: f"{labels.dtype}{labels.shape}{labels.flat[1]}",
)
def test_labels_that_are_no_classes_are_one_line(labels: Any, tmp_path: Path) -> None:
    npz(tmp_path / "arrays.npz", train_labels=labels)
    refused(lambda: read_arrays(tmp_path))


HEADERS = {
    "noise": "os.system('true')",
    "a call": "{'descr': '|u1', 'fortran_order': False, 'shape': __import__('os').getpid()}",
    "deep": "(" * 5000,
    "long": "{" + " " * 60_000 + "}",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (10, 4, 4)}",
    "huge": "{'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 10**9, 10**9)}",
    "huge sides": "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000000000, 1000000000)}",
    "some gigabytes": "{'descr': '|u1', 'fortran_order': False, 'shape': (10, 10000, 60000)}",
    "negative": "{'descr': '|u1', 'fortran_order': False, 'shape': (-10, -4, 4)}",
    "floats": "{'descr': '|u1', 'fortran_order': False, 'shape': (10.0, 4, 4)}",
    "wide": "{'descr': '|V1000000000', 'fortran_order': False, 'shape': (10, 4, 4)}",
    "bad type": "{'descr': ['u1'], 'fortran_order': False, 'shape': (10, 4, 4)}",
    "no shape": "{'descr': '|u1'}",
}


@pytest.mark.parametrize("name", HEADERS)
def test_an_impossible_header_of_an_array_is_one_line(name: str, tmp_path: Path) -> None:
    members(tmp_path / "arrays.npz", train_images=header(HEADERS[name]) + bytes(160))
    message = refused(lambda: read_arrays(tmp_path))
    assert "malformed node" not in message
    assert name in ("objects", "huge sides", "some gigabytes", "negative", "wide") or "has no header" in message


def test_a_zip_bomb_behind_an_array_is_not_unpacked(tmp_path: Path) -> None:
    plain = io.BytesIO()
    np.save(plain, IMAGES)
    members(tmp_path / "arrays.npz", train_images=plain.getvalue() + bytes(300 * 2**20))
    refused(lambda: read_arrays(tmp_path))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_noise_in_an_npz_is_read_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    whole = npz(tmp_path / "whole.npz").read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=60))
    (tmp_path / "arrays.npz").write_bytes(whole[:start] + noise + whole[start + len(noise) :])
    read_or_refused(lambda: read_arrays(tmp_path))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_noise_in_a_zip_of_drawings_is_read_or_one_line(tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "root"
    if not root.exists():
        write_zips(root, small_files())
    path = next((root / "omniglot-py").glob("*.zip"))
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=60))
    path.write_bytes(whole[:start] + noise + whole[start + len(noise) :])
    try:
        read_or_refused(lambda: small_dataset()._decode(root, 8, None))
    finally:
        path.write_bytes(whole)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize("size", [(10_000, 10_000), (2**31 - 1, 2**31 - 1), (30_000, 30_000), (1, 2**30)], ids=str)
def test_a_picture_of_absurd_size_is_one_line(
    size: tuple[int, int], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "b.png").write_bytes(png_header(*size))
    message = refused(lambda: find_pictures(tmp_path / "train", size=8, resize=8).read([0]))
    assert "b.png cannot be read as a picture" in message


def test_a_strip_that_would_be_scaled_to_gigabytes_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.new("RGB", (60_000, 1)).save(tmp_path / "train" / "a" / "b.png")
    message = refused(lambda: find_pictures(tmp_path / "train", size=224, resize=256).read([0]))
    assert "15,360,000 x 256 pixels" in message


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
def test_noise_in_a_picture_is_read_or_one_line(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
    stored = io.BytesIO()
    Image.new("RGB", (12, 10), (3, 2, 1)).save(stored, kind)
    whole = stored.getvalue()
    start = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=20))
    (tmp_path / "train" / "a" / "b.png").write_bytes(whole[:start] + noise + whole[start + len(noise) :])
    read_or_refused(lambda: find_pictures(tmp_path / "train", size=8, resize=8).read([0]))


def test_pictures_that_cannot_be_held_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "b.png")
    pictures = find_pictures(tmp_path, size=1000, resize=1000)
    shared = {"name": "folder", "folder": "x", "size": 1000, "resize": None, "workers": 0, "memory_gb": 4.0}
    monkeypatch.setattr("cl_powerprop.memory.machine_memory", lambda: 4 * 10**6)
    with pytest.raises(ConfigurationError, match=r"data.in_memory=true: .* needs 0.006 GB of memory, and this machine"):
        FolderConfig(**shared, in_memory=True).holds(pictures)  # type: ignore[arg-type]
    monkeypatch.undo()
    assert FolderConfig(**shared, in_memory=True).holds(pictures)  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_noise_as_idx_is_read_or_one_line(content: bytes) -> None:
    for each in (content, b"\0\0\x08" + content):
        read_or_refused(lambda content=each: parse_idx(content, "a"))  # type: ignore[misc]


def test_many_empty_members_of_a_gzip_file_take_no_long_time(mnist_folder: Path) -> None:
    (mnist_folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"", mtime=0) * 10**5)
    refused(lambda: MNIST().read(mnist_folder.parents[1]))
