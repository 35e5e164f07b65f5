"""Images of one's own, in an .npz file: what ``numpy.savez(file, train_images=..., train_labels=...)`` writes."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cl_powerprop.data.dataset import DataConfig, Dataset, Images, Progress, every_fifth, register_dataset
from cl_powerprop.data.npz import ArrayHeader, NpzFile, open_npz
from cl_powerprop.errors import ConfigurationError, DataError
from cl_powerprop.memory import too_large
from cl_powerprop.tensor_header import shortened

TRAIN, TEST = ("train_images", "train_labels"), ("test_images", "test_labels")
_USUAL_CHANNELS = (1, 3, 4)


@dataclass(kw_only=True)
class ArraysConfig(DataConfig):
    """Options of `data=arrays`.

    Attributes:
        file: the .npz file, relative to ``root``.
        memory_gb: largest size of its arrays, in gigabytes.
    """

    file: str = "arrays.npz"
    memory_gb: float = 8.0

    def check(self) -> None:
        path = Path(self.file)
        if path.is_absolute() or ".." in path.parts:
            raise ConfigurationError(
                f"data.file={self.file} must be relative to the data folder; data.root can name another folder"
            )
        if not self.memory_gb > 0.0:
            raise ConfigurationError(f"data.memory_gb must be > 0, not {self.memory_gb}")


@register_dataset("arrays", ArraysConfig)
class Arrays(Dataset):
    """The arrays of an .npz file, which is read without pickle.

    Images are uint8 ``[n, height, width]`` or ``[n, channels, height, width]``, labels whole numbers ``[n]`` from 0.
    Without `test_images` and `test_labels`, every fifth image of a class is test data.
    """

    name = "arrays"

    def status(self, root: Path) -> str:
        return f"images of your own, in the .npz file that data.file names below {root}"

    def verify(self, root: Path, progress: Progress | None = None) -> str:
        return "the file that data.file names is checked when it is read"

    def download(self, root: Path, progress: Progress | None = None) -> None:
        """Do nothing: the file is the user's own."""

    def images(self, root: Path, config: DataConfig) -> Images:
        options: ArraysConfig = config  # type: ignore[assignment]
        path = root / options.file
        with _opened(path) as content:
            names = _check_names(path, content)
            headers = {name: content.header(name) for name in names}
            _check_headers(path, headers, options.memory_gb)  # before any array is made
            arrays = {name: content.read(name) for name in names}
        train_images, train_labels = arrays["train_images"], arrays["train_labels"].astype(np.int64)
        if set(TEST) <= names:
            images = Images(train_images, train_labels, arrays["test_images"], arrays["test_labels"].astype(np.int64))
        else:
            test = every_fifth(train_labels)
            images = Images(train_images[~test], train_labels[~test], train_images[test], train_labels[test])
        _check_labels(path, images)
        return images


@contextmanager
def _opened(path: Path) -> Iterator[NpzFile]:
    """Open the file; what goes wrong while it is read is a :class:`DataError`."""
    try:
        with open_npz(path) as content:
            yield content
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"data=arrays: {path} was not found; data.file is relative to data.root, else to $CL_POWERPROP_DATA"
        ) from error
    except KeyError as error:
        raise _unusable(path, f"{error.args[0]}: members must be called NAME.npy, as numpy.savez calls them") from error
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error)) from error


def _check_names(path: Path, content: NpzFile) -> set[str]:
    """Return which of the arrays there are."""
    names = {*content.names} & {*TRAIN, *TEST}
    if not set(TRAIN) <= names or len(names & set(TEST)) == 1:
        found = shortened(", ".join(content.names)) or "nothing"
        needed = "train_images and train_labels, and test_images with test_labels or neither of these"
        raise _unusable(path, f"it holds {found}; it needs {needed}")
    return names


def _check_headers(path: Path, headers: Mapping[str, ArrayHeader], memory_gb: float) -> None:
    for part in ("train", "test") if "test_images" in headers else ("train",):
        images, labels = headers[f"{part}_images"], headers[f"{part}_labels"]
        shape = images.shape
        if images.dtype != np.uint8:
            raise _unusable(
                path,
                f"{part}_images are {shortened(images.dtype)}; they must be uint8, from 0 to 255, such as "
                "(255 * images).round().astype('uint8') for pixels from 0 to 1",
            )
        if len(shape) not in (3, 4) or min(shape) < 1:
            wanted = "[n, height, width] or [n, channels, height, width]"
            raise _unusable(path, f"{part}_images have the shape {list(shape)}; they must be {wanted}")
        if len(shape) == 4 and shape[1] not in _USUAL_CHANNELS and shape[3] in _USUAL_CHANNELS:
            raise _unusable(
                path, f"{part}_images have their channels last; images.transpose(0, 3, 1, 2) puts them second"
            )
        if shape[1:] != headers["train_images"].shape[1:]:
            raise _unusable(path, "training and test images differ in their shape")
        if labels.dtype.kind not in "iu" or labels.shape != shape[:1]:
            found = f"{shortened(labels.dtype)} {list(labels.shape)}"
            raise _unusable(
                path, f"{part}_labels are {found}; they must be a whole number for each of {shape[0]} images"
            )
    # In memory a pixel takes one byte and a label eight.
    size = sum(math.prod(each.shape) * (1 if name.endswith("images") else 8) for name, each in headers.items()) / 1e9
    if size > memory_gb:
        raise _unusable(path, f"its arrays take {size:.3g} GB; data.memory_gb allows {memory_gb:g}")
    if problem := too_large(int(2 * size * 1e9)):  # as they are read, and as tensors
        raise _unusable(path, f"its arrays need {problem}")


def _check_labels(path: Path, images: Images) -> None:
    shown = np.unique(images.train_labels)
    if not np.array_equal(shown, np.arange(len(shown))):
        found = f"{len(shown)} different labels from {shown[0]} to {shown[-1]}"
        raise _unusable(path, f"its training images have {found}; labels must count from 0 without a gap")
    if len(images.test_labels) == 0:
        raise _unusable(path, "no class has the five images that make one of them test data; add test_images")
    if not np.isin(images.test_labels, shown).all():
        other = images.test_labels[~np.isin(images.test_labels, shown)][0]
        raise _unusable(path, f"a test image has label {other}, which no training image has")


def _unusable(path: Path, why: str) -> DataError:
    return DataError(f"data=arrays: {path} cannot be used: {why}")
