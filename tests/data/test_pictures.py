"""Pictures in files: found, decoded, scaled and cut as torchvision does it, and refused in one line."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize
from torchvision.transforms.functional import resized_crop

from cl_powerprop.data.dataset import Images, StreamedImages
from cl_powerprop.data.folder import Folder, FolderConfig
from cl_powerprop.data.pictures import find_pictures
from cl_powerprop.errors import ConfigurationError, DataError
from cl_powerprop.sequences.single import SingleConfig, single
from cl_powerprop.source import DataSource

from .picture_folder import write_pictures


def options(root: Path, **changed: object) -> FolderConfig:
    settings = {"name": "folder", "root": str(root), "folder": "imagenet", "size": 16, "resize": 20}
    config = FolderConfig(**settings | {"in_memory": "auto", "memory_gb": 1.0, "workers": 2} | changed)  # type: ignore[arg-type]
    config.check()
    return config


def read(root: Path, **changed: object) -> Images | StreamedImages:
    return Folder().images(root, options(root, **changed))


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    return write_pictures(tmp_path)


def test_files_and_labels_are_those_of_torchvision(imagenet: Path) -> None:
    (imagenet / "train" / "n00000001" / "deeper").mkdir()
    Image.new("L", (30, 20)).save(imagenet / "train" / "n00000001" / "deeper" / "grey.png")
    (imagenet / "train" / "n00000001" / "notes.txt").write_text("no picture")
    mine = find_pictures(imagenet / "train", size=16, resize=16)
    theirs = ImageFolder(imagenet / "train")
    assert list(mine.classes) == theirs.classes
    found = {
        (str(mine.folder / os.fsdecode(name)), int(label)) for name, label in zip(mine.names, mine.labels, strict=True)
    }
    assert found == set(theirs.samples)
    assert len(mine) == len(theirs) == 25


@pytest.mark.parametrize(("width", "height"), [(20, 20), (41, 33), (33, 41), (57, 21), (500, 375), (16, 90)])
def test_centres_and_parts_are_those_of_torchvision(tmp_path: Path, width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    folder = tmp_path / "class"
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "one.png")
    pictures = find_pictures(tmp_path, size=16, resize=20)
    picture = pictures.open(0)
    centre = Compose([Resize(20), CenterCrop(16), PILToTensor()])(picture)
    assert np.array_equal(pictures.centre(picture), centre.numpy())
    assert np.array_equal(pictures.read([0])[0], centre.numpy())
    part = PILToTensor()(resized_crop(picture, 2, 3, 11, 9, [16, 16]))
    assert np.array_equal(pictures.cut(picture, (3, 2, 12, 13)), part.numpy())


def test_held_and_streamed_images_are_the_same(imagenet: Path, tmp_path: Path) -> None:
    tasks = []
    for in_memory in (True, False):
        source = DataSource(options(tmp_path, in_memory=in_memory), torch.device("cpu"))
        sequence = single(SingleConfig(name="single"), source, 0)
        assert sequence.sample_shape == (3, 16, 16)
        assert sequence.classes == (3,)
        assert sequence.workers == (None if in_memory else 2)
        tasks.append(sequence.tasks[0])
    for split in ("train", "valid", "test"):
        one, other = (getattr(task, split) for task in tasks)
        assert len(one) == {"train": 22, "valid": 2, "test": 12}[split]
        assert torch.equal(one.images(), other.images())
        assert torch.equal(one.labels, other.labels)


def test_images_are_normalised_by_imagenet_s_mean_and_deviation(imagenet: Path, tmp_path: Path) -> None:
    train, _ = DataSource(options(tmp_path), torch.device("cpu")).pixels()
    raw, _ = DataSource(options(tmp_path, normalize=False), torch.device("cpu")).pixels()
    assert torch.flatten(torch.as_tensor(train.mean)).tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert torch.flatten(torch.as_tensor(train.std)).tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert (raw.mean, raw.std) == (0.0, 1.0)


def test_what_fits_is_held_and_the_rest_is_streamed(imagenet: Path, tmp_path: Path) -> None:
    took = (24 + 12) * 3 * 16 * 16 / 1e9
    assert isinstance(read(tmp_path, memory_gb=took * 1.001), Images)
    assert isinstance(read(tmp_path, memory_gb=took * 0.999), StreamedImages)
    assert isinstance(read(tmp_path, memory_gb=0.0, in_memory=True), Images)
    assert isinstance(read(tmp_path, in_memory=False), StreamedImages)


def test_test_is_taken_where_there_is_no_val(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, test="test")
    images = read(tmp_path, in_memory=False)
    assert isinstance(images, StreamedImages)
    assert images.test.folder == folder / "test"


def spoil_class(folder: Path) -> None:
    for file in (folder / "val" / "n00000002").iterdir():
        file.unlink()


def spoil_splits(folder: Path) -> None:
    (folder / "val").rename(folder / "elsewhere")


def spoil_classes(folder: Path) -> None:
    (folder / "train").rename(folder / "elsewhere")
    (folder / "train").mkdir()


def spoil_one_split(folder: Path) -> None:
    spoil_class(folder)
    (folder / "val" / "n00000002").rmdir()


def spoil_training(folder: Path) -> None:
    (folder / "train" / "n00000000").rename(folder / "gone")


def spoil_picture(folder: Path) -> None:
    path = folder / "train" / "n00000001" / "picture_3.JPEG"
    path.write_bytes(path.read_bytes()[:200])


def spoil_format(folder: Path) -> None:
    (folder / "val" / "n00000000" / "picture_1.png").write_text("GIF? no.")


MISTAKES = {
    "no folder": (
        lambda folder: folder.rename(folder.with_name("other")),
        ["imagenet must hold train and val", "data.folder"],
    ),
    "no test pictures": (spoil_splits, ["imagenet must hold train and val (or test)"]),
    "no classes": (spoil_classes, ["train has no classes", "a folder for each class"]),
    "an empty class": (spoil_class, ["val has no picture of the class n00000002", ".jpeg"]),
    "a class without test pictures": (spoil_one_split, ["val has no folder for the class n00000002", "train"]),
    "a class without training pictures": (spoil_training, ["train has no folder for the class n00000000", "val"]),
    "a truncated picture": (spoil_picture, ["train/n00000001/picture_3.JPEG cannot be read as a picture: "]),
    "no picture": (spoil_format, ["val/n00000000/picture_1.png cannot be read as a picture: it has no known format"]),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_what_cannot_be_read_is_one_line(name: str, imagenet: Path, tmp_path: Path) -> None:
    spoil, parts = MISTAKES[name]
    spoil(imagenet)  # type: ignore[operator]
    with pytest.raises(DataError) as raised:
        read(tmp_path)
    message = str(raised.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_many_classes_are_counted(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, classes=6, train=1, tested=1)
    for label in range(1, 6):
        (folder / "val" / f"n{label:08}").rename(folder / str(label))
    with pytest.raises(DataError, match="the classes n00000001, n00000002, n00000003 and 2 more"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"size": 0}, "data.size must be from 1 to 4096, not 0"),
        ({"resize": 15}, "data.resize must be from data.size=16 to 4096, or null, not 15"),
        ({"in_memory": "yes"}, "data.in_memory must be one of auto, true, false, not 'yes'"),
        ({"memory_gb": -1.0}, "data.memory_gb must be a finite number of at least 0"),
        ({"workers": -1}, "data.workers must be at least 0, not -1"),
        ({"folder": "/elsewhere"}, "data.folder=/elsewhere must be a folder below data.root"),
        ({"folder": "../elsewhere"}, "must be a folder below data.root"),
    ],
)
def test_impossible_options(changed: dict[str, object], part: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        options(tmp_path, **changed)
    assert part in str(raised.value)
