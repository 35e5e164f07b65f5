"""A small folder of pictures as ImageNet is laid out: each class is a colour, in pictures of many sizes and formats."""

from pathlib import Path

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "png", "jpg")


def write_pictures(
    root: Path, *, classes: int = 3, train: int = 8, tested: int = 4, seed: int = 0, test: str = "val"
) -> Path:
    """Write ``<root>/imagenet/train`` and ``<root>/imagenet/<test>``, with as many pictures of each class as asked for.

    Returns:
        The folder ``<root>/imagenet``.
    """
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 216, (classes, 3))
    for split, count in (("train", train), (test, tested)):
        for label, colour in enumerate(colours):
            folder = root / "imagenet" / split / f"n{label:08}"
            folder.mkdir(parents=True)
            for index in range(count):
                height, width = rng.integers(20, 60, 2)
                pixels = colour + rng.normal(0, 20, (height, width, 3))
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(folder / f"picture_{index}.{FORMATS[index % len(FORMATS)]}")
    return root / "imagenet"
