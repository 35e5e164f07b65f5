"""Data sets in MNIST's format and scikit-learn's digits: layout, checks and registration."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cl_powerprop import run
from cl_powerprop.data.dataset import DataConfig, ImageDataset
from cl_powerprop.data.digits import Digits
from cl_powerprop.data.fashion_mnist import FashionMNIST
from cl_powerprop.data.idx import PARTS, IdxDataset, IdxFile
from cl_powerprop.data.kmnist import KMNIST
from cl_powerprop.data.mnist import MNIST
from cl_powerprop.data.mnist5k import MNIST5k
from cl_powerprop.errors import DataError
from cl_powerprop.registry import parts

from ..run.conftest import Command, clean_process, command
from .idx import write_idx

__all__ = ["clean_process", "command"]

KIN = [MNIST, FashionMNIST, KMNIST]


@pytest.mark.parametrize("kind", KIN)
def test_files_and_checksums_are_those_of_torchvision(kind: type[IdxDataset]) -> None:
    import torchvision.datasets

    theirs = getattr(torchvision.datasets, kind.__name__)
    assert {f"{file.name}.gz": file.gz_md5 for file in kind.files.values()} == dict(theirs.resources)
    assert set(kind.files) == set(PARTS)
    assert kind.folder == theirs.__name__


class Small(IdxDataset):
    """Twelve images in IDX files without checksums of the plain files, as for KMNIST."""

    name = "kmnist"
    classes = 3
    mean, std = 0.5, 0.5
    folder = "Small"
    mirrors = ()
    shapes = ((8, 4, 4), (4, 4, 4))


@pytest.fixture
def small(tmp_path: Path) -> Small:
    rng = np.random.default_rng(0)
    folder = tmp_path / "Small" / "raw"
    folder.mkdir(parents=True)
    files = {}
    for part in PARTS:
        shape = Small.shapes[part.startswith("test")]
        high = 256 if part.endswith("images") else Small.classes
        array = rng.integers(0, high, shape if part.endswith("images") else shape[:1], dtype=np.uint8)
        content = gzip.compress(write_idx(array))
        (folder / f"{part}.gz").write_bytes(content)
        files[part] = IdxFile(part, hashlib.md5(content, usedforsecurity=False).hexdigest())
    dataset = Small()
    dataset.files = files
    return dataset


def test_gzipped_files_are_checked_and_read(tmp_path: Path, small: Small) -> None:
    images = small.read(tmp_path)
    assert images.train_images.shape == (8, 4, 4)
    assert images.test_labels.dtype == np.int64
    assert small.verify(tmp_path) == "8 training and 4 test images"


def test_the_gzipped_file_is_trusted_more_than_a_plain_one_without_checksum(tmp_path: Path, small: Small) -> None:
    expected = small.read(tmp_path)
    plain = tmp_path / "Small" / "raw" / "test_images"
    plain.write_bytes(write_idx(np.zeros((4, 4, 4), np.uint8)))
    assert np.array_equal(small.read(tmp_path).test_images, expected.test_images)


def test_plain_files_alone_are_read_by_their_shape(tmp_path: Path, small: Small) -> None:
    expected = small.read(tmp_path)
    for part in PARTS:
        gzipped = tmp_path / "Small" / "raw" / f"{part}.gz"
        gzipped.with_name(part).write_bytes(gzip.decompress(gzipped.read_bytes()))
        gzipped.unlink()
    assert np.array_equal(small.read(tmp_path).train_images, expected.train_images)
    (tmp_path / "Small" / "raw" / "train_images").write_bytes(write_idx(np.zeros((7, 4, 4), np.uint8)))
    with pytest.raises(DataError, match=r"train_images is truncated or altered \(images \(7, 4, 4\)"):
        small.read(tmp_path)


def test_a_label_beyond_the_classes_is_refused(tmp_path: Path, small: Small) -> None:
    folder = tmp_path / "Small" / "raw"
    (folder / "test_labels.gz").unlink()
    (folder / "test_labels").write_bytes(write_idx(np.array([0, 1, 2, 3], np.uint8)))
    with pytest.raises(DataError, match=r"labels \(4,\) up to 3"):
        small.read(tmp_path)


def test_files_without_a_sample_are_refused(tmp_path: Path, small: Small) -> None:
    for part in PARTS:
        path = tmp_path / "Small" / "raw" / f"{part}.gz"
        path.with_name(part).write_bytes(write_idx(np.zeros((0, 4, 4) if "images" in part else (0,), np.uint8)))
        path.unlink()
    with pytest.raises(DataError, match=r"images \(0, 4, 4\)"):
        small.read(tmp_path)


def test_a_full_disk_while_unpacking_is_one_error(
    tmp_path: Path, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cl_powerprop.data.idx.write_file", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        small.download(tmp_path)
    assert not list(tmp_path.rglob("*.part"))


def gzipped(folder: Path, part: str) -> Path:
    return folder / "Small" / "raw" / f"{part}.gz"


def recompress(path: Path) -> None:
    """As Debian's package dataset-fashion-mnist has it: the same content, other bytes."""
    before = path.read_bytes()
    path.write_bytes(gzip.compress(gzip.decompress(before), compresslevel=1, mtime=1))
    assert path.read_bytes() != before


def with_content(small: Small, root: Path) -> Small:
    """The same data set with the checksum of each file's content, as for MNIST and Fashion-MNIST."""
    known = Small()
    known.name, known.files = "fashion_mnist", {}
    for part, file in small.files.items():
        content = gzip.decompress(gzipped(root, part).read_bytes())
        known.files[part] = IdxFile(part, file.gz_md5, hashlib.md5(content, usedforsecurity=False).hexdigest())
    return known


def test_content_that_is_known_is_read_however_it_is_compressed(tmp_path: Path, small: Small) -> None:
    expected, known = small.read(tmp_path), with_content(small, tmp_path)
    for part in PARTS:
        recompress(gzipped(tmp_path, part))
    assert np.array_equal(known.read(tmp_path).train_images, expected.train_images)
    assert not known.unverified(tmp_path)
    known.download(tmp_path)  # there is no mirror to fetch anything from
    assert {path.name for path in (tmp_path / "Small" / "raw").iterdir()} == {*PARTS, *(f"{part}.gz" for part in PARTS)}
    assert np.array_equal(known.read(tmp_path).train_images, expected.train_images)


@pytest.mark.parametrize("compressed", [True, False])
def test_other_content_of_the_right_shape_is_refused(tmp_path: Path, small: Small, compressed: bool) -> None:
    known, path = with_content(small, tmp_path), gzipped(tmp_path, "train_labels")
    forged = write_idx(np.zeros(8, np.uint8))
    path.write_bytes(gzip.compress(forged))
    if not compressed:
        path.with_suffix("").write_bytes(forged)
    with pytest.raises(DataError, match=r"train_labels.* is truncated or altered.*data download fashion_mnist"):
        known.read(tmp_path)
    with pytest.raises(DataError, match="could not download"):
        known.download(tmp_path)


@pytest.mark.parametrize("how", ["recompressed", "plain"])
def test_content_of_which_no_checksum_is_known_is_not_verified(tmp_path: Path, small: Small, how: str) -> None:
    expected = small.read(tmp_path)
    assert not small.unverified(tmp_path)
    assert small.status(tmp_path) == f"present in {tmp_path / 'Small' / 'raw'}"
    path = gzipped(tmp_path, "train_labels")
    if how == "plain":
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    else:
        recompress(path)
    assert np.array_equal(small.read(tmp_path).train_labels, expected.train_labels)
    assert small.unverified(tmp_path) == ["train_labels"]
    assert small.status(tmp_path).endswith(", not verified: no checksum is known of train_labels")


def test_a_gzip_that_is_cut_or_corrupt_is_refused_even_without_a_checksum(tmp_path: Path, small: Small) -> None:
    path = gzipped(tmp_path, "train_images")
    whole = path.read_bytes()
    corrupt = bytearray(whole)
    corrupt[-6] ^= 1  # the checksum at the end
    for damaged in (whole[:-9], b"", bytes(corrupt)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"train_images\.gz is truncated or altered.*data download kmnist"):
            small.read(tmp_path)


def test_checksums_of_content_are_known_for_all_but_kmnist() -> None:
    assert {file.md5 for file in FashionMNIST.files.values()} == {
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    }
    assert all(file.md5 for file in MNIST.files.values())
    assert not any(file.md5 for file in KMNIST.files.values())


@pytest.mark.parametrize("kind", [Digits, MNIST5k])
def test_what_comes_with_a_package_is_compared_too(kind: type[ImageDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, root = kind(), Path("unused")
    assert not dataset.unverified(root)
    images = dataset.images(root, DataConfig(name=dataset.name))
    assert images.sha256() == kind.sha256
    altered = replace(images, test_labels=images.test_labels[::-1].copy())
    monkeypatch.setattr(kind, "read", lambda self, root: altered)
    for check in (lambda: dataset.verify(root), lambda: dataset.images(root, DataConfig(name=dataset.name))):
        with pytest.raises(DataError, match=f"data={dataset.name} are altered"):
            check()


@pytest.fixture
def unknown_kmnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plain files of KMNIST's shape, whose content nothing vouches for."""
    folder = tmp_path / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    monkeypatch.setattr(KMNIST, "shapes", ((60, 28, 28), (20, 28, 28)))
    rng = np.random.default_rng(0)
    for part, file in KMNIST.files.items():
        count = 20 if part.startswith("test") else 60
        array = rng.integers(0, 256, (count, 28, 28)) if part.endswith("images") else np.arange(count) % 10
        (folder / file.name).write_bytes(write_idx(array.astype(np.uint8)))
    return tmp_path


def test_data_that_is_not_verified_is_never_called_whole(
    unknown_kmnist: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for action, told in (
        ("verify", "kmnist: 60 training and 20 test images; not verified:"),
        ("status", ", not verified:"),
    ):
        assert command("data", action, "kmnist", "--root", unknown_kmnist) == 0
        said = capsys.readouterr().out
        assert told in said
        assert "train-images-idx3-ubyte" in said
        assert "whole" not in said


@pytest.mark.slow
def test_a_run_says_whether_its_data_is_verified(unknown_kmnist: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["benchmark.n_tasks=2", "train.epochs=1", "strategy=naive", "model.hidden=[8]", "progress=false"]
    record = run([*words, "data=kmnist", f"data.root={unknown_kmnist}"], unknown_kmnist / "run").record
    assert record["data_verified"] is False
    assert "data=kmnist is not verified: no checksum is known of train-images-idx3-ubyte" in caplog.text
    caplog.clear()
    assert run([*words, "data=digits"], unknown_kmnist / "known").record["data_verified"] is True
    assert "verified" not in caplog.text


def test_digits_are_all_there_and_divided_by_class() -> None:
    images = Digits().read(Path("unused"))
    assert images.train_images.shape[1:] == (8, 8)
    assert len(images.train_labels) + len(images.test_labels) == 1797
    assert images.train_images.max() == 255
    everything = np.bincount(np.concatenate([images.train_labels, images.test_labels]))
    assert np.array_equal(np.bincount(images.test_labels), everything // 5)
    shares = images.train_images / 255
    assert shares.mean() == pytest.approx(Digits.mean, abs=5e-4)
    assert shares.std() == pytest.approx(Digits.std, abs=5e-4)
    assert (len(images.train_labels), len(images.test_labels)) == (1442, 355)


def test_every_data_set_has_a_config_and_a_status(tmp_path: Path) -> None:
    from cl_powerprop.catalogue import catalogue

    assert set(parts("data")) == set(catalogue()["data"])
    for name, part in parts("data").items():
        dataset = part.make()
        assert dataset.name == name
        assert dataset.status(tmp_path).startswith(
            ("present in", "missing in", "images of your own", "pictures of your own")
        )
