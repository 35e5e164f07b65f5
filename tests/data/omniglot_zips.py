"""Small zips laid out as Omniglot's: three alphabets with six characters."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cl_powerprop.data.omniglot import DRAWERS, SIDE, Omniglot, Zip

SMALL = {"images_background.zip": {"Abc": 2, "Runes": 1}, "images_evaluation.zip": {"Dots": 3}}
CHARACTERS = 6


def strokes(seed: int) -> NDArray[np.bool_]:
    """A drawing that is different for every seed; True is paper."""
    paper = np.ones((SIDE, SIDE), dtype=bool)
    rng = np.random.default_rng(seed)
    row, column = rng.integers(10, 80, 2)
    paper[row : row + 12, column : column + 12] = False
    return paper


def png(paper: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(paper).save(buffer, "PNG")
    return buffer.getvalue()


def small_files() -> dict[str, dict[str, bytes]]:
    """The files of each small zip; the drawings are numbered in their order."""
    files: dict[str, dict[str, bytes]] = {}
    number = 0
    for name, alphabets in SMALL.items():
        entries = files.setdefault(name, {})
        for alphabet, count in alphabets.items():
            for character in range(1, count + 1):
                for drawer in range(1, DRAWERS + 1):
                    path = f"{name.removesuffix('.zip')}/{alphabet}/character{character:02}/{number:04}_{drawer:02}.png"
                    entries[path] = png(strokes(number))
                    number += 1
    return files


def write_zips(root: Path, files: dict[str, dict[str, bytes]]) -> None:
    folder = root / "omniglot-py"
    folder.mkdir(parents=True, exist_ok=True)
    for name, entries in files.items():
        with zipfile.ZipFile(folder / name, "w") as content:
            for path in sorted(entries, reverse=True):  # the order within the zip does not matter
                content.writestr(path, entries[path])


def small_dataset() -> Omniglot:
    digest = hashlib.sha256()
    for number in range(CHARACTERS * DRAWERS):
        digest.update((strokes(number) * np.uint8(255)).tobytes())
    zips = tuple(Zip(name, "0" * 32, alphabets) for name, alphabets in SMALL.items())
    return Omniglot(zips, digest.hexdigest())
