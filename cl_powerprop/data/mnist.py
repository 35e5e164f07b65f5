"""MNIST in torchvision's layout: `<root>/MNIST/raw/*`, IDX files as they are or gzipped."""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl_powerprop.data.dataset import Dataset, Images, Progress
from cl_powerprop.data.fetch import fetch, md5
from cl_powerprop.errors import DataError


@dataclass(frozen=True)
class IdxFile:
    """One IDX file: its name, the MD5 of its bytes, and of the gzipped file that mirrors offer."""

    name: str
    md5: str
    gz_md5: str


FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"
    ),
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
LICENCE = "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. J. C. Burges)"


def parse_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes.

    Raises:
        DataError: if the bytes are not such a file, or fewer or more than its header says.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{name} is not an IDX file of unsigned bytes")
    dimensions = content[3]
    if len(content) < 4 + 4 * dimensions:
        raise DataError(f"{name} ends within its header: truncated?")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(np.int64)
    offset = 4 + 4 * dimensions
    if len(content) - offset != shape.prod():
        raise DataError(f"{name} holds {len(content) - offset} bytes, its header says {shape.prod()}: truncated?")
    return np.frombuffer(content, np.uint8, offset=offset).reshape(shape)


class MNIST(Dataset):
    """The full MNIST: 60,000 training and 10,000 test digits, 28 x 28."""

    name = "mnist"
    classes = 10
    mean, std = 0.1307, 0.3081

    def _folder(self, root: Path) -> Path:
        return root / "MNIST" / "raw"

    def status(self, root: Path) -> str:
        folder = self._folder(root)
        missing = [
            file.name
            for file in FILES.values()
            if not (folder / file.name).exists() and not (folder / f"{file.name}.gz").exists()
        ]
        return f"missing in {folder}: {', '.join(missing)}" if missing else f"present in {folder}"

    def read(self, root: Path) -> Images:
        arrays = {key: parse_idx(self._checked(root, file), file.name) for key, file in FILES.items()}
        return Images(
            arrays["train_images"],
            arrays["train_labels"].astype(np.int64),
            arrays["test_images"],
            arrays["test_labels"].astype(np.int64),
        )

    def _checked(self, root: Path, file: IdxFile) -> bytes:
        path = self._folder(root) / file.name
        gzipped = path.with_name(f"{file.name}.gz")
        if not path.exists() and not gzipped.exists():
            raise DataError(
                f"data=mnist: {path} was not found; `cl-powerprop data download mnist` fetches it "
                "(data.root or $CL_POWERPROP_DATA name another folder; data=mnist5k needs no download)"
            )
        source = path if path.exists() else gzipped
        try:
            content = path.read_bytes() if source is path else gzip.decompress(gzipped.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise self._damaged(source, str(error)) from error
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != file.md5:
            raise self._damaged(source, f"its MD5 is {found}, not {file.md5}")
        return content

    @staticmethod
    def _damaged(path: Path, why: str) -> DataError:
        return DataError(
            f"{path} is truncated or altered ({why}); `cl-powerprop data download mnist` mends it "
            "(data=mnist5k needs no download)"
        )

    def download(self, root: Path, progress: Progress | None = None) -> None:
        folder = self._folder(root)
        for file in FILES.values():
            path = folder / file.name
            if path.exists() and md5(path) == file.md5:
                continue
            gzipped = path.with_name(f"{file.name}.gz")
            if not (gzipped.exists() and md5(gzipped) == file.gz_md5):
                fetch([mirror + gzipped.name for mirror in MIRRORS], gzipped, file.gz_md5, progress)
            part = path.with_name(f"{file.name}.part")
            part.write_bytes(gzip.decompress(gzipped.read_bytes()))
            os.replace(part, path)
