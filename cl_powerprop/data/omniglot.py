"""Omniglot: 1,623 characters of 50 alphabets, each drawn once by 20 people. B. Lake, licence MIT.

Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program induction", Science 2015.
Read from the published zips in torchvision's layout, `<root>/omniglot-py/*.zip`, and decoded once per image size.
"""

import hashlib
import io
import logging
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cl_powerprop.data.alphabets import BACKGROUND, EVALUATION
from cl_powerprop.data.dataset import DEFAULT_ROOT, DataConfig, Dataset, Drawings, Progress, register_dataset
from cl_powerprop.data.fetch import fetch, has_md5, md5
from cl_powerprop.data.npz import ArrayHeader, open_npz
from cl_powerprop.errors import ConfigurationError, DataError, FileError, check_choice
from cl_powerprop.files import open_file, write_file

log = logging.getLogger("cl_powerprop")

DRAWERS, SIDE = 20, 105
CHARACTERS = ("all", "background", "evaluation")
# SHA-256 of the decoded drawings in order, one byte per pixel at full size: repacking the zips does not change it.
DRAWINGS_SHA256 = "ed224c6eac86ff74f8684914e90c024b71c5565d24511e87b7c9a7e396218107"

_DRAWING = re.compile(r"images_\w+/(?P<alphabet>[^/]+)/character(?P<character>\d+)/\d+_(?P<drawer>\d+)\.png")
_LARGEST_DRAWING = 2**16  # bytes of a PNG; the largest published one has 379
_LARGEST_ZIP = 2**25  # bytes; the published ones have 9.5 and 6.5 million
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, SyntaxError, NotImplementedError),
    *(ValueError, RuntimeError, struct.error, Image.DecompressionBombError),
)
_CACHE_FORMAT = "cl-powerprop omniglot 1"


@dataclass(frozen=True)
class Zip:
    """One zip: its name, the MD5 of the published file, and the number of characters of each alphabet in it."""

    name: str
    md5: str
    alphabets: Mapping[str, int]


@dataclass(kw_only=True)
class OmniglotDataConfig(DataConfig):
    """Options of `data=omniglot`.

    Attributes:
        size: side of the square images, in pixels.
        characters: "all", or those of the "background" or the "evaluation" alphabets.
    """

    size: int
    characters: str = "all"

    def check(self) -> None:
        check_choice("data.characters", self.characters, CHARACTERS)
        if not 1 <= self.size <= SIDE:
            raise ConfigurationError(f"data.size must be from 1 to {SIDE}, not {self.size}")


@register_dataset("omniglot", OmniglotDataConfig)
class Omniglot(Dataset):
    """32,460 drawings, 28 x 28 by default.

    Args:
        zips: the zips to read; by default the published ones.
        sha256: hash of the drawings, see :data:`DRAWINGS_SHA256`; None checks only their number and shape.
    """

    name = "omniglot"
    mean, std = 0.0805, 0.2190
    mirror = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"

    def __init__(
        self,
        zips: tuple[Zip, ...] = (
            Zip("images_background.zip", "68d2efa1b9178cc56df9314c21c6e718", BACKGROUND),
            Zip("images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811", EVALUATION),
        ),
        sha256: str | None = DRAWINGS_SHA256,
    ) -> None:
        self.zips = zips
        self.sha256 = sha256

    def _folder(self, root: Path) -> Path:
        return root / "omniglot-py"

    def status(self, root: Path) -> str:
        folder = self._folder(root)
        missing = [file.name for file in self.zips if not (folder / file.name).exists()]
        return f"missing in {folder}: {', '.join(missing)}" if missing else f"present in {folder}"

    def download(self, root: Path, progress: Progress | None = None) -> None:
        folder, fetched = self._folder(root), False
        for file in self.zips:
            path = folder / file.name
            if has_md5(path, file.md5) or self._is_whole(file, path):
                continue
            self._fetch(file, path, progress)
            fetched = True
        if not fetched and not self._has_its_drawings(root, progress):
            for file in self._repacked(root):
                self._fetch(file, folder / file.name, progress)

    def _fetch(self, file: Zip, path: Path, progress: Progress | None) -> None:
        fetch([self.mirror + file.name], path, file.md5, progress)

    def _repacked(self, root: Path) -> list[Zip]:
        """Return the zips that differ from the published files."""
        return [file for file in self.zips if not has_md5(self._folder(root) / file.name, file.md5)]

    def _has_its_drawings(self, root: Path, progress: Progress | None) -> bool:
        """Return whether zips, if they are repacked, hold the published drawings."""
        try:
            if self._repacked(root):
                self._decode(root, 1, progress)
        except DataError:
            return False
        return True

    def _is_whole(self, file: Zip, path: Path) -> bool:
        """Return whether a zip that differs from the published file, such as a repacked one, holds all drawings."""
        try:
            with _opened(path) as content:
                for entry in self._entries(file, path, content):
                    _member(content, entry)
        except _DAMAGES:
            return False
        return True

    def unverified(self, root: Path) -> Sequence[str]:
        return super().unverified(root) if self.sha256 is None else []

    def verify(self, root: Path, progress: Progress | None = None) -> str:
        drawings = self._decode(root, 28, progress)
        characters = len(np.unique(drawings.character))
        return f"{len(drawings.images):,} drawings of {characters:,} characters in {len(drawings.alphabets)} alphabets"

    def drawings(self, root: Path, config: DataConfig) -> Drawings:
        options: OmniglotDataConfig = config  # type: ignore[assignment]
        drawings = self.read(root, options.size)
        return drawings if options.characters == "all" else self._of_zip(drawings, options.characters)

    def _of_zip(self, drawings: Drawings, characters: str) -> Drawings:
        """Return the drawings of one zip; its alphabets and characters count from 0."""
        (chosen,) = (set(file.alphabets) for file in self.zips if characters in file.name)
        mine = np.isin(drawings.alphabet, [index for index, name in enumerate(drawings.alphabets) if name in chosen])
        alphabet, character = (column[mine] for column in (drawings.alphabet, drawings.character))
        names = tuple(name for name in drawings.alphabets if name in chosen)
        return Drawings(
            drawings.images[mine], alphabet - alphabet.min(), character - character.min(), drawings.drawer[mine], names
        )

    def read(self, root: Path, size: int = 28, progress: Progress | None = None) -> Drawings:
        """Return all drawings scaled to ``size`` x ``size``, from the cache if there is a valid one.

        The cache is written beside the zips or, if that folder is not writable, below ~/.cache/cl-powerprop.

        Args:
            root: folder of the data.
            size: side of the images, in pixels.
            progress: called while drawings are decoded.

        Raises:
            DataError: if a zip is missing, damaged or incomplete.
        """
        stamp = self._stamp(root, size)
        for path in self._caches(root, size):
            drawings = self._from_cache(path, size, stamp)
            if drawings is not None:
                return drawings
        drawings = self._decode(root, size, progress)
        self._to_cache(root, size, stamp, drawings)
        return drawings

    @property
    def _count(self) -> int:
        """How many drawings there are."""
        return DRAWERS * sum(sum(file.alphabets.values()) for file in self.zips)

    def _decode(self, root: Path, size: int, progress: Progress | None) -> Drawings:
        total = self._count
        images = np.empty((total, size, size), dtype=np.uint8)
        digest, done = hashlib.sha256(), 0
        for file in self.zips:
            for image in self._read_images(file, self._present(root, file)):
                digest.update(image.tobytes())
                scaled = image.resize((size, size), Image.Resampling.BILINEAR)  # antialiased: averages source pixels
                images[done] = 255 - np.asarray(scaled)
                done += 1
                if progress is not None and done % 500 == 0:
                    progress(f"decoding {self.name}", done, total)
        if self.sha256 is not None and digest.hexdigest() != self.sha256:
            raise self._damaged(self._folder(root), "the drawings differ from the published ones")
        if progress is not None:
            progress(f"decoding {self.name}", total, total)
        return self._labelled(images)

    def _labelled(self, images: NDArray[np.uint8]) -> Drawings:
        counts = {name: count for file in self.zips for name, count in file.alphabets.items()}
        characters = np.repeat(np.arange(sum(counts.values())), DRAWERS)
        alphabets = np.repeat(np.arange(len(counts)), [count * DRAWERS for count in counts.values()])
        drawers = np.tile(np.arange(DRAWERS), sum(counts.values()))
        return Drawings(images, alphabets, characters, drawers, tuple(counts))

    def _read_images(self, file: Zip, path: Path) -> Iterator[Image.Image]:
        """Yield the drawings of a zip in order, as greyscale images."""
        try:
            with _opened(path) as content:
                for entry in self._entries(file, path, content):
                    with Image.open(io.BytesIO(_member(content, entry)), formats=["PNG"]) as image:
                        if image.size != (SIDE, SIDE):
                            raise self._damaged(path, f"{entry} is {image.size}, not {(SIDE, SIDE)}")
                        yield image.convert("L")
        except DataError:
            raise
        except _DAMAGES as error:
            raise self._damaged(path, str(error)) from error

    def _entries(self, file: Zip, path: Path, content: zipfile.ZipFile) -> list[str]:
        """Return the file names of all drawings in order.

        Raises:
            DataError: unless the zip has exactly the drawings of its alphabets, characters and drawers.
        """
        found: dict[tuple[str, int, int], str] = {}
        for name in content.namelist():
            match = _DRAWING.fullmatch(name)
            if match:
                found[match["alphabet"], int(match["character"]), int(match["drawer"])] = name
        wanted = [
            (alphabet, character, drawer)
            for alphabet, count in file.alphabets.items()
            for character in range(1, count + 1)
            for drawer in range(1, DRAWERS + 1)
        ]
        if found.keys() != set(wanted):
            missing = [key for key in wanted if key not in found] or [key for key in found if key not in set(wanted)]
            alphabet, character, drawer = missing[0]
            raise self._damaged(
                path,
                f"it holds {len(found):,} drawings instead of {len(wanted):,}; "
                f"first difference: {alphabet}, character {character}, drawer {drawer}",
            )
        return [found[key] for key in wanted]

    def _present(self, root: Path, file: Zip) -> Path:
        path = self._folder(root) / file.name
        if not path.exists():
            raise DataError(
                f"data=omniglot: {path} was not found; `cl-powerprop data download omniglot` fetches it "
                "(data.root or $CL_POWERPROP_DATA name another folder)"
            )
        return path

    @staticmethod
    def _damaged(path: Path, why: str) -> DataError:
        return DataError(f"{path} is damaged or incomplete ({why}); `cl-powerprop data download omniglot` repairs it")

    def _caches(self, root: Path, size: int) -> list[Path]:
        folders = dict.fromkeys([self._folder(root), self._folder(Path(DEFAULT_ROOT).expanduser())])
        return [folder / f"omniglot_{size}.npz" for folder in folders]

    def _stamp(self, root: Path, size: int) -> str:
        """Return the stamp of a valid cache: its format, the image size and the MD5 of each zip."""
        paths = [self._present(root, file) for file in self.zips]
        try:
            return " ".join([_CACHE_FORMAT, str(size), *map(md5, paths)])
        except (OSError, FileError) as error:
            raise self._damaged(paths[0].parent, str(error)) from error

    def _from_cache(self, path: Path, size: int, stamp: str) -> Drawings | None:
        """Return the cached drawings, or None if there is no cache, it is damaged, or it has another stamp."""
        try:
            with open_npz(path) as content:
                expected = {
                    "images": ArrayHeader((self._count, size, size), np.dtype(np.uint8)),
                    "sha256": ArrayHeader((), np.dtype("<U64")),
                    "stamp": ArrayHeader((), np.dtype(f"<U{len(stamp)}")),
                }
                if any(content.header(name) != header for name, header in expected.items()):
                    return None
                images, digest = content.read("images"), str(content.read("sha256"))
                if str(content.read("stamp")) == stamp and _fingerprint(images) == digest:
                    return self._labelled(images)
        except (OSError, ValueError, KeyError):
            pass
        return None

    def _to_cache(self, root: Path, size: int, stamp: str, drawings: Drawings) -> None:
        """Write the cache; two processes may do so at the same time."""
        digest = _fingerprint(drawings.images)
        file = io.BytesIO()
        np.savez_compressed(file, images=drawings.images, sha256=np.array(digest), stamp=np.array(stamp))
        problem: OSError | None = None
        for path in self._caches(root, size):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, [file.getbuffer()])
                return
            except OSError as error:
                problem = error
        log.warning(f"the decoded Omniglot could not be cached ({problem}); the next run decodes it again")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip of drawings, if it is no larger than one can be."""
    with (
        open_file(path, _LARGEST_ZIP, follow=True) as descriptor,
        open(descriptor, "rb", closefd=False) as file,
        zipfile.ZipFile(file) as content,
    ):
        yield content


def _member(content: zipfile.ZipFile, name: str) -> bytes:
    """Return a member of a zip, of which no more is unpacked than a drawing can have.

    Raises:
        ValueError: if it is larger.
    """
    with content.open(name) as file:
        unpacked = file.read(_LARGEST_DRAWING + 1)
    if len(unpacked) > _LARGEST_DRAWING:
        raise ValueError(f"{name} has more than {_LARGEST_DRAWING:,} bytes")
    return unpacked


def _fingerprint(images: NDArray[np.uint8]) -> str:
    return hashlib.sha256(f"{images.dtype} {images.shape} ".encode() + images.tobytes()).hexdigest()
