"""A folder of pictures of one's own, one folder a class, as ImageNet is laid out."""

import math
from dataclasses import dataclass
from pathlib import Path, PurePath

from cl_powerprop.data.dataset import DataConfig, Dataset, Images, Progress, StreamedImages, register_dataset
from cl_powerprop.data.pictures import Pictures, check_same_classes, find_pictures
from cl_powerprop.errors import ConfigurationError, DataError
from cl_powerprop.limits import check_threads
from cl_powerprop.memory import too_large

TESTED = ("val", "test")  # the folder of the test pictures: ImageNet's test pictures have no labels

_GIGABYTE = 10**9
_COPIES = 2  # decoded pictures are held twice for a moment: as arrays and as tensors
_LARGEST_SIDE = 4096  # pixels


@dataclass(kw_only=True)
class FolderConfig(DataConfig):
    """Options of `data=folder`.

    Attributes:
        folder: the folder below the data's, which holds `train/` and `val/`, or `test/` if there is no `val/`.
        size: side of the square images, in pixels.
        resize: length to which the short side of a picture is scaled before the centre is cut out; None: ``size``.
        in_memory: decode all pictures once and hold them (True), read them whenever they are needed (False), or hold
            them if they take no more than ``memory_gb`` ("auto").
        memory_gb: gigabytes (10^9 bytes) that the images may take to be held; independent of the machine.
        workers: processes that read pictures which are not held, and threads that decode those which are.
    """

    folder: str
    size: int
    resize: int | None
    in_memory: bool | str
    memory_gb: float
    workers: int

    def check(self) -> None:
        place = PurePath(self.folder)
        if place.is_absolute() or ".." in place.parts:
            raise ConfigurationError(f"data.folder={self.folder} must be a folder below data.root, which can be any")
        if not 1 <= self.size <= _LARGEST_SIDE:
            raise ConfigurationError(f"data.size must be from 1 to {_LARGEST_SIDE}, not {self.size}")
        if self.resize is not None and not self.size <= self.resize <= _LARGEST_SIDE:
            raise ConfigurationError(
                f"data.resize must be from data.size={self.size} to {_LARGEST_SIDE}, or null, not {self.resize}"
            )
        if self.in_memory not in (True, False, "auto"):
            raise ConfigurationError(f"data.in_memory must be one of auto, true, false, not {self.in_memory!r}")
        if not 0.0 <= self.memory_gb < math.inf:
            raise ConfigurationError(f"data.memory_gb must be a finite number of at least 0, not {self.memory_gb}")
        check_threads("data.workers", self.workers, least=0)

    def holds(self, *parts: Pictures) -> bool:
        """Return whether these pictures are held in memory.

        Raises:
            ConfigurationError: if they are to be held, and there is not enough memory.
        """
        size = sum(math.prod(part.shape) for part in parts)
        held = size <= self.memory_gb * _GIGABYTE if self.in_memory == "auto" else bool(self.in_memory)
        if held and (problem := too_large(_COPIES * size)):
            raise ConfigurationError(
                f"data.in_memory={str(self.in_memory).lower()}: to hold {size / _GIGABYTE:,.3g} GB of pictures needs "
                f"{problem}; data.in_memory=false reads them whenever they are needed, a smaller data.size needs less"
            )
        return held


@register_dataset("folder", FolderConfig)
class Folder(Dataset):
    """Pictures in colour, normalised by the mean and standard deviation of ImageNet, as is usual."""

    name = "folder"
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def status(self, root: Path) -> str:
        return f"pictures of your own, in the folder below {root} that data.folder names"

    def verify(self, root: Path, progress: Progress | None = None) -> str:
        return "pictures of your own, which a run checks as it reads them"

    def download(self, root: Path, progress: Progress | None = None) -> None:
        """Do nothing: the pictures are the user's own."""

    def images(self, root: Path, config: DataConfig) -> Images | StreamedImages:
        options: FolderConfig = config  # type: ignore[assignment]
        folder = root / options.folder
        places = [folder / "train", *(place for name in TESTED if (place := folder / name).is_dir())][:2]
        if len(places) < 2 or not places[0].is_dir():
            raise DataError(
                f"data=folder: {folder} must hold train and val (or test), each with a folder for each class; "
                "data.root and data.folder say where it is"
            )
        size, resize = options.size, options.resize or options.size
        train, test = (find_pictures(place, size=size, resize=resize, workers=options.workers) for place in places)
        check_same_classes(train, test)
        if not options.holds(train, test):
            return StreamedImages(train, test)
        images = [part.read(range(len(part))) for part in (train, test)]
        return Images(images[0], train.labels, images[1], test.labels)
