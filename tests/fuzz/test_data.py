"""Data files from strangers: a data set is read, or refused in one line."""

import gzip
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from cl_powerprop.data.arrays import Arrays, ArraysConfig
from cl_powerprop.data.cifar import CIFAR10
from cl_powerprop.data.folder import Folder, FolderConfig
from cl_powerprop.data.idx import PARTS, IdxDataset, IdxFile
from cl_powerprop.errors import DataError

from ..data.cifar_files import archive, md5, small_files
from ..data.idx import write_idx
from ..data.omniglot_zips import SMALL, small_dataset, write_zips
from ..data.omniglot_zips import small_files as omniglot_files
from ..data.picture_folder import write_pictures
from .cases import cases
from .data_damages import in_array, in_idx, in_pickle, in_tar, in_zip, other_picture
from .guard import Place, case, watched
from .hostile import Damage, any_damage

pytestmark = pytest.mark.slow

Read = Callable[[Path], object]


class SmallIdx(IdxDataset):
    """Twelve images, whose checksums nobody knows."""

    name, classes, folder, mirrors = "small", 10, "small", ()
    files: Mapping[str, IdxFile] = {part: IdxFile(part, "0" * 32) for part in PARTS}
    shapes = ((8, 28, 28), (4, 28, 28))


def write_small(root: Path, packed: bool) -> None:
    folder = root / "small" / "raw"
    folder.mkdir(parents=True)
    for part in PARTS:
        count = SmallIdx.shapes[part.startswith("test")][0]
        content = write_idx(np.zeros((count, 28, 28) if part.endswith("images") else count, dtype=np.uint8))
        path = folder / (f"{part}.gz" if packed else part)
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)


@pytest.fixture(scope="module")
def omniglot() -> dict[str, dict[str, bytes]]:
    return omniglot_files()


@pytest.fixture(scope="module")
def cifar() -> dict[str, bytes]:
    return small_files(CIFAR10)


def read_arrays(root: Path) -> object:
    return Arrays().images(root, ArraysConfig(name="arrays"))


def read_pictures(root: Path, held: bool) -> object:
    config = FolderConfig(
        name="folder", folder="imagenet", size=16, resize=None, in_memory=held, memory_gb=1.0, workers=0
    )
    images: Any = Folder().images(root, config)
    return images if held else images.train.read(range(len(images.train)))


drawn: dict[str, tuple[st.SearchStrategy[Damage], st.SearchStrategy[str]]] = {
    "idx": (in_idx | any_damage, st.sampled_from(PARTS)),
    "gzip": (in_idx | any_damage, st.sampled_from([f"{part}.gz" for part in PARTS])),
    "omniglot": (in_zip | any_damage, st.sampled_from(sorted(SMALL))),
    "cache": (in_array | in_zip | any_damage, st.just("omniglot_28.npz")),
    "arrays": (in_array | in_array | in_zip | any_damage, st.just("arrays.npz")),
    "pickles": (in_pickle | in_pickle | any_damage, st.sampled_from(["data_batch_1", "test_batch"])),
    "archive": (in_tar | any_damage, st.just(CIFAR10.archive)),
    "pictures": (other_picture | any_damage, st.sampled_from(["picture_0.JPEG", "picture_1.png"])),
}
kinds = st.sampled_from(sorted(drawn)).flatmap(lambda kind: st.tuples(st.just(kind), *drawn[kind]))


@cases("data", chosen=kinds, held=st.booleans())
def test_a_data_set_is_read_or_is_refused(
    place: Place,
    omniglot: dict[str, dict[str, bytes]],
    cifar: dict[str, bytes],
    chosen: tuple[str, Damage, str],
    held: bool,
) -> None:
    kind, damage, name = chosen
    with case(place) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))  # where Omniglot may be cached
        root = folder / "data"
        root.mkdir()
        read: Read
        match kind:
            case "idx" | "gzip":
                write_small(root, kind == "gzip")
                read = SmallIdx().read
            case "omniglot" | "cache":
                write_zips(root, omniglot)
                read = small_dataset().read
                if kind == "cache":
                    read(root)
            case "arrays":
                images, labels = np.zeros((12, 8, 8), dtype=np.uint8), np.arange(12) % 2
                np.savez(root / name, train_images=images, train_labels=labels)
                read = read_arrays
            case "pickles" | "archive":
                _write_cifar(root, cifar, kind)
                read = CIFAR10().read
            case _:
                write_pictures(root, classes=2, train=2, tested=2)
                read = lambda root: read_pictures(root, held)  # noqa: E731
        victim = min(root.rglob(name))
        damage(victim, place)
        if kind in ("pickles", "archive"):
            _publish(patch, root, cifar)

        def act() -> list[str]:
            read(root)
            return []

        lines = watched(place, act, errors=(DataError,), follows=True)
        assert all(str(root) in line for line in lines)


def _write_cifar(root: Path, files: dict[str, bytes], kind: str) -> None:
    if kind == "archive":
        (root / CIFAR10.archive).write_bytes(archive(CIFAR10, files))
        return
    (root / CIFAR10.folder).mkdir()
    for name, content in files.items():
        (root / CIFAR10.folder / name).write_bytes(content)


def _publish(patch: pytest.MonkeyPatch, root: Path, files: dict[str, bytes]) -> None:
    """Make damaged files the published ones: the readers behind the checksums must withstand them too."""
    found = {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file() and _is_small(path)}
    for group in ("train_files", "test_files"):
        names: Any = getattr(CIFAR10, group)
        patch.setattr(CIFAR10, group, {name: md5(found.get(name, files[name])) for name in names})
    if CIFAR10.archive in found:
        patch.setattr(CIFAR10, "archive_md5", md5(found[CIFAR10.archive]))


def _is_small(path: Path) -> bool:
    return path.stat().st_size < 2**26 and not path.is_symlink()


def test_all_of_it_is_read_without_damage(
    place: Place, omniglot: dict[str, dict[str, bytes]], cifar: dict[str, bytes]
) -> None:
    with case(place) as folder, pytest.MonkeyPatch.context() as patch:
        write_small(folder, packed=True)
        write_zips(folder, omniglot)
        write_pictures(folder, classes=2, train=2, tested=2)
        np.savez(folder / "arrays.npz", train_images=np.zeros((12, 8, 8), np.uint8), train_labels=np.arange(12) % 2)
        _write_cifar(folder, cifar, "archive")
        _publish(patch, folder, cifar)
        for read in (SmallIdx().read, small_dataset().read, read_arrays, CIFAR10().read):
            assert read(folder) is not None
        assert tarfile.is_tarfile(folder / CIFAR10.archive)
        for held in (True, False):
            assert read_pictures(folder, held) is not None
