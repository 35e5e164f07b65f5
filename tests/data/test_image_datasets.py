"""Data sets in MNIST's format and scikit-learn's digits: layout, checks and registration."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from cl_powerprop.data.digits import Digits
from cl_powerprop.data.fashion_mnist import FashionMNIST
from cl_powerprop.data.idx import PARTS, IdxDataset, IdxFile
from cl_powerprop.data.kmnist import KMNIST
from cl_powerprop.data.mnist import MNIST
from cl_powerprop.errors import DataError
from cl_powerprop.registry import parts

from .idx import write_idx

KIN = [MNIST, FashionMNIST, KMNIST]


@pytest.mark.parametrize("kind", KIN)
def test_files_and_checksums_are_those_of_torchvision(kind: type[IdxDataset]) -> None:
    import torchvision.datasets

    theirs = getattr(torchvision.datasets, kind.__name__)
    assert {f"{file.name}.gz": file.gz_md5 for file in kind.files.values()} == dict(theirs.resources)
    assert set(kind.files) == set(PARTS)
    assert kind.folder == theirs.__name__


class Small(IdxDataset):
    """Twelve images in IDX files without checksums of the plain files, as for Fashion-MNIST."""

    name = "fashion_mnist"
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

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        small.download(tmp_path)
    assert not list(tmp_path.rglob("*.part"))


def test_an_altered_gzip_is_refused(tmp_path: Path, small: Small) -> None:
    path = tmp_path / "Small" / "raw" / "train_labels.gz"
    path.write_bytes(gzip.compress(write_idx(np.zeros(8, np.uint8))))
    with pytest.raises(DataError, match=r"train_labels\.gz is truncated or altered.*data download fashion_mnist"):
        small.read(tmp_path)


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
        assert dataset.status(tmp_path).startswith(("present in", "missing in"))
