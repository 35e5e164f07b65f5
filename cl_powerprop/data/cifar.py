"""CIFAR-10 and CIFAR-100: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

Read from torchvision's layout: the folder of the unpacked archive or, without it, the archive. The MD5 of every file
is compared with the published one before the file is read.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.data.dataset import ImageDataset, Images, Progress, register_dataset
from cl_powerprop.data.fetch import fetch, has_md5
from cl_powerprop.data.pickled_arrays import read_pickled
from cl_powerprop.errors import DataError, FileError
from cl_powerprop.files import read_file, write_file
from cl_powerprop.shown import as_line

SHAPE = (3, 32, 32)

_SHOWN = 200  # characters of a reason
_LARGEST = 2**28  # bytes that a file may have; the largest published one has 155 million


class CIFAR(ImageDataset):
    """50,000 training and 10,000 test images in colour, 32 x 32.

    Attributes:
        folder: name of the folder of the unpacked archive.
        archive, archive_md5: name and MD5 of the archive.
        url: address of the folder that has the archive.
        train_files, test_files, other_files: MD5 of each file, by its name; the others are not read.
        label_key: name of the labels in a file.
    """

    classes: int
    folder: str
    archive: str
    archive_md5: str
    url = "https://www.cs.toronto.edu/~kriz/"
    train_files: Mapping[str, str]
    test_files: Mapping[str, str]
    other_files: Mapping[str, str]
    label_key: bytes

    @property
    def _needed(self) -> dict[str, str]:
        return {**self.train_files, **self.test_files}

    def status(self, root: Path) -> str:
        folder = root / self.folder
        missing = self._missing(folder)
        if not missing:
            return f"present in {folder}"
        if (root / self.archive).exists():
            return f"present in {root / self.archive}"
        return f"missing in {folder}: {', '.join(missing)}"

    def unverified(self, root: Path) -> Sequence[str]:
        return []

    def read(self, root: Path) -> Images:
        contents = self._contents(root, self._needed)
        train, test = (self._joined(root, contents, files) for files in (self.train_files, self.test_files))
        return Images(*train, *test)

    def download(self, root: Path, progress: Progress | None = None) -> None:
        folder, archive = root / self.folder, root / self.archive
        files = {**self._needed, **self.other_files}
        if all(has_md5(folder / name, expected) for name, expected in files.items()):
            return
        if not has_md5(archive, self.archive_md5):
            fetch([self.url + self.archive], archive, self.archive_md5, progress)
        for name, content in self._unpacked(archive, files).items():
            try:
                folder.mkdir(exist_ok=True)
                write_file(folder / name, content)
            except OSError as error:
                raise DataError(f"{folder / name} cannot be written: {error.strerror}") from error

    def _missing(self, folder: Path) -> list[str]:
        return [name for name in self._needed if not (folder / name).exists()]

    def _contents(self, root: Path, files: Mapping[str, str]) -> dict[str, bytes]:
        """Return the content of the files, each as it was published."""
        folder, archive = root / self.folder, root / self.archive
        if not self._missing(folder):
            try:
                contents = {name: read_file(folder / name, _LARGEST, follow=True) for name in files}
            except (OSError, FileError) as error:
                raise self._damaged(folder, str(error)) from error
            for name, content in contents.items():
                self._check(folder / name, content, files[name])
            return contents
        if archive.exists():
            if not has_md5(archive, self.archive_md5):
                raise self._damaged(archive, f"its MD5 is not {self.archive_md5}")
            return self._unpacked(archive, files)
        raise DataError(
            f"data={self.name}: neither {folder} nor {archive} was found; `cl-powerprop data download {self.name}` "
            "fetches it (data.root or $CL_POWERPROP_DATA name another folder)"
        )

    def _unpacked(self, archive: Path, files: Mapping[str, str]) -> dict[str, bytes]:
        """Return the content of the files in the archive; nothing is written."""
        contents = {}
        try:
            with tarfile.open(archive) as members:
                for member in members:
                    name = member.name.removeprefix(f"{self.folder}/")
                    is_file = member.isreg() and member.size <= _LARGEST
                    if name in files and is_file and (stream := members.extractfile(member)):
                        contents[name] = stream.read()
        except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError) as error:
            raise self._damaged(archive, str(error)) from error
        for name, content in contents.items():
            self._check(archive, content, files[name])
        if missing := files.keys() - contents.keys():
            raise self._damaged(archive, f"it lacks {', '.join(sorted(missing))}")
        return contents

    def _check(self, path: Path, content: bytes, expected: str) -> None:
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != expected:
            raise self._damaged(path, f"the MD5 of its content is {found}, not {expected}")

    def _joined(
        self, root: Path, contents: Mapping[str, bytes], files: Iterable[str]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the images and labels of several files."""
        images, labels = [], []
        for name in files:
            try:
                found = read_pickled(contents[name])
                images.append(found[b"data"].array().reshape(-1, *SHAPE))
                labels.append(_flat(found[self.label_key]))
            except (DataError, KeyError, AttributeError, OverflowError, TypeError, ValueError) as error:
                raise self._damaged(root / self.folder / name, str(error)) from error
            if labels[-1].shape != images[-1].shape[:1] or not np.isin(labels[-1], np.arange(self.classes)).all():
                raise self._damaged(root / self.folder / name, f"{len(images[-1])} images, {len(labels[-1])} labels")
        return np.concatenate(images), np.concatenate(labels)

    def _damaged(self, path: Path, why: str) -> DataError:
        reason = as_line(why, _SHOWN)
        return DataError(
            f"{path} is truncated or altered ({reason}); `cl-powerprop data download {self.name}` repairs it"
        )


def _flat(labels: list[int]) -> NDArray[np.int64]:
    """Return a list as an array; one that is nested can stand for billions of values.

    Raises:
        ValueError: if it is no list of whole numbers.
    """
    if not all(type(label) is int for label in labels):
        raise ValueError("its labels are no whole numbers")
    return np.array(labels, dtype=np.int64)


@register_dataset("cifar10")
class CIFAR10(CIFAR):
    """Ten classes: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck."""

    name = "cifar10"
    classes = 10
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    folder = "cifar-10-batches-py"
    archive, archive_md5 = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
    train_files: Mapping[str, str] = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    }
    test_files: Mapping[str, str] = {"test_batch": "40351d587109b95175f43aff81a1287e"}
    other_files: Mapping[str, str] = {"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"}
    label_key = b"labels"


@register_dataset("cifar100")
class CIFAR100(CIFAR):
    """A hundred classes, by the fine labels."""

    name = "cifar100"
    classes = 100
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    folder = "cifar-100-python"
    archive, archive_md5 = "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"
    train_files: Mapping[str, str] = {"train": "16019d7e3df5f24257cddd939b257f8d"}
    test_files: Mapping[str, str] = {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
    other_files: Mapping[str, str] = {"meta": "7973b15100ade9c7d40fb424638fde48"}
    label_key = b"fine_labels"
