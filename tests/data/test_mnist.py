"""The reader of the full MNIST, on a small folder in torchvision's layout."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cl_powerprop.cli import main
from cl_powerprop.data import mnist
from cl_powerprop.data.idx import IdxFile, parse_idx
from cl_powerprop.data.mnist import MNIST
from cl_powerprop.errors import DataError

from .idx import write_idx as idx

shapes = st.lists(st.integers(0, 6), min_size=1, max_size=4)


@given(shapes, st.integers(0, 2**32 - 1))
def test_parsing_inverts_writing(shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    parsed = parse_idx(idx(array), "file")
    assert parsed.shape == array.shape
    assert parsed.dtype == np.uint8
    assert np.array_equal(parsed, array)


@given(st.integers(1, 30))
def test_a_truncated_file_is_refused(cut: int) -> None:
    content = idx(np.arange(30, dtype=np.uint8).reshape(5, 6))
    with pytest.raises(DataError, match=r"digits.*truncated"):
        parse_idx(content[:-cut], "digits")


@pytest.mark.parametrize("length", range(16))
def test_a_file_cut_within_its_header_is_refused(length: int) -> None:
    content = idx(np.arange(30, dtype=np.uint8).reshape(1, 5, 6))
    with pytest.raises(DataError, match="digits"):
        parse_idx(content[:length], "digits")


def test_a_file_that_is_too_long_is_refused() -> None:
    with pytest.raises(DataError, match="digits"):
        parse_idx(idx(np.zeros(4, np.uint8)) + b"x", "digits")


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08\x01", b"\x00\x00\x0d\x01", b"\x00\x01\x08\x01", b"", b"\x00\x00"])
def test_a_wrong_magic_number_is_refused(magic: bytes) -> None:
    with pytest.raises(DataError, match="digits is not an IDX file"):
        parse_idx(magic + b"\x00\x00\x00\x00", "digits")


@pytest.fixture
def arrays() -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "train_labels": rng.integers(0, 10, 30, dtype=np.uint8),
        "test_images": rng.integers(0, 256, (10, 28, 28), dtype=np.uint8),
        "test_labels": rng.integers(0, 10, 10, dtype=np.uint8),
    }


@pytest.fixture
def root(tmp_path: Path, arrays: dict[str, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with four small raw files, whose checksums the package expects."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    monkeypatch.setattr(MNIST, "shapes", (arrays["train_images"].shape, arrays["test_images"].shape))
    for key, array in arrays.items():
        content, name = idx(array), mnist.FILES[key].name
        gzipped = gzip.compress(content, mtime=0)
        digests = [hashlib.md5(data, usedforsecurity=False).hexdigest() for data in (gzipped, content)]
        monkeypatch.setitem(mnist.FILES, key, IdxFile(name, *digests))
        (folder / name).write_bytes(content)
    return tmp_path


def gzip_all(root: Path) -> None:
    for path in list((root / "MNIST" / "raw").iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()


@pytest.mark.parametrize("gzipped", [False, True])
def test_reads_raw_and_gzipped_files(root: Path, arrays: dict[str, NDArray[np.uint8]], gzipped: bool) -> None:
    if gzipped:
        gzip_all(root)
    images = MNIST().read(root)
    for key, array in arrays.items():
        assert np.array_equal(getattr(images, key), array)
    assert images.train_labels.dtype == np.int64
    assert MNIST().status(root) == f"present in {root / 'MNIST' / 'raw'}"


@pytest.mark.parametrize("key", list(mnist.FILES))
def test_a_missing_file_is_named_with_its_remedies(root: Path, key: str) -> None:
    path = root / "MNIST" / "raw" / mnist.FILES[key].name
    path.unlink()
    with pytest.raises(DataError) as caught:
        MNIST().read(root)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), "`cl-powerprop data download mnist`", "data=mnist5k"):
        assert part in message
    assert MNIST().status(root) == f"missing in {path.parent}: {path.name}"


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_every_byte_after_the_header(path: Path) -> None:
    """Overwrite every byte after the header; zlib cannot read a .gz file after that."""
    path.write_bytes(path.read_bytes()[:20] + b"\xff" * 200)


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("damage", [damage_truncate, damage_alter, damage_empty, damage_every_byte_after_the_header])
def test_a_damaged_file_is_named_with_its_remedies(
    root: Path, damage: object, gzipped: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if gzipped:
        gzip_all(root)
    path = root / "MNIST" / "raw" / (mnist.FILES["test_images"].name + (".gz" if gzipped else ""))
    damage(path)  # type: ignore[operator]
    with pytest.raises(DataError) as caught:
        MNIST().read(root)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} is truncated or altered"), "the very file that was read"
    for part in ("`cl-powerprop data download mnist`", "data=mnist5k"):
        assert part in message

    with pytest.raises(SystemExit) as stopped:
        main(["data", "verify", "mnist", "--root", str(root)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"cl-powerprop: error: {message}\n"


def test_a_damaged_raw_file_is_not_hidden_by_a_gzipped_one(root: Path) -> None:
    path = root / "MNIST" / "raw" / mnist.FILES["train_labels"].name
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    damage_alter(path)
    with pytest.raises(DataError, match=path.name):
        MNIST().read(root)


def test_verify_and_status_of_a_good_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action, expected in (
        ("verify", "mnist: whole, 30 training and 10 test images"),
        ("status", "mnist: present"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["data", action, "mnist", "--root", str(root)])
        assert stopped.value.code == 0
        assert expected in capsys.readouterr().out


def test_the_environment_names_the_root(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CL_POWERPROP_DATA", str(root))
    with pytest.raises(SystemExit) as stopped:
        main(["data", "verify", "mnist"])
    assert stopped.value.code == 0
    assert "whole" in capsys.readouterr().out


@pytest.fixture
def full_root() -> Path:
    root = os.environ.get("CL_POWERPROP_DATA")
    if root is None:
        pytest.skip("CL_POWERPROP_DATA is not set; it names the folder of the full MNIST")
    return Path(root)


@pytest.mark.full_data
def test_the_full_set(full_root: Path) -> None:
    images = MNIST().read(full_root)
    assert images.train_images.shape == (60000, 28, 28)
    assert images.test_images.shape == (10000, 28, 28)
    # counts of each digit, from Y. LeCun's set as the literature gives them
    assert np.bincount(images.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(images.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(float(images.train_images.mean() / 255), 4) == MNIST.mean
    assert round(float(images.train_images.std() / 255), 4) == MNIST.std


@pytest.mark.full_data
def test_the_full_set_verifies(full_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "verify", "mnist", "--root", str(full_root)])
    assert stopped.value.code == 0
    assert "mnist: whole, 60,000 training and 10,000 test images" in capsys.readouterr().out


@pytest.mark.full_data
def test_checksums_are_those_torchvision_expects(full_root: Path) -> None:
    from torchvision.datasets import MNIST as TORCHVISION_MNIST

    expected = {name.removesuffix(".gz"): md5 for name, md5 in TORCHVISION_MNIST.resources}
    assert {file.name: file.gz_md5 for file in mnist.FILES.values()} == expected
    for file in mnist.FILES.values():
        content = (full_root / "MNIST" / "raw" / file.name).read_bytes()
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == file.md5
