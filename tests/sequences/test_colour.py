"""Task sequences of colour images: each channel has its own mean and deviation, and pixels keep their colours."""

import numpy as np
import pytest
import torch

from cl_powerprop.data.dataset import ImageDataset, Images
from cl_powerprop.data.mnist5k import MNIST5k
from cl_powerprop.sequences.permuted import permuted
from cl_powerprop.sequences.rotated import rotated
from cl_powerprop.sequences.split import split_by_class
from cl_powerprop.tasks import Pixels, Split, to_pixels

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 3, 8, 6), dtype=np.uint8)
LABELS = np.arange(60) % 4
MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.4, 0.9)


class Coloured(ImageDataset):
    name = "coloured"
    classes = 4
    mean, std = MEAN, STD


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> Pixels:
    monkeypatch.setattr(Coloured, "__abstractmethods__", frozenset())
    return to_pixels(Coloured(), IMAGES, LABELS, torch.device("cpu"))


def shown(split: Split) -> np.ndarray:
    """The images of a split with pixel values from 0 to 255."""
    mean, std = (np.array(value).reshape(3, 1, 1) for value in (MEAN, STD))
    values = (split.images().double().numpy() * std + mean) * 255
    assert np.allclose(values, np.rint(values), atol=1e-3)
    return np.rint(values).astype(np.uint8)


def test_each_channel_is_normalised_by_its_own_numbers(pixels: Pixels) -> None:
    images = Split(pixels, torch.arange(60), pixels.labels).images().numpy()
    assert images.shape == (60, 3, 8, 6)
    for channel in range(3):
        expected = (IMAGES[:, channel] / 255.0 - MEAN[channel]) / STD[channel]
        np.testing.assert_allclose(images[:, channel], expected, rtol=1e-5, atol=1e-5)


def test_a_split_has_the_images_of_its_classes(pixels: Pixels) -> None:
    sequence = split_by_class(pixels, pixels, 4, groups=[[0, 1], [2, 3]], scenario="task", validation=0.2, seed=0)
    assert sequence.sample_shape == (3, 8, 6)
    for index, task in enumerate(sequence.tasks):
        mine = np.flatnonzero(index == LABELS // 2)
        assert np.array_equal(shown(task.test), IMAGES[mine])


def test_a_permutation_moves_pixels_with_their_colours(pixels: Pixels) -> None:
    options = {"n_tasks": 3, "scenario": "task", "permute_first": False, "validation": 0.2, "seed": 3}
    sequence = permuted(pixels, pixels, 4, **options)
    assert np.array_equal(shown(sequence.tasks[0].test), IMAGES)
    flat = IMAGES.reshape(60, 3, 48)
    for task in sequence.tasks[1:]:
        order = task.test.view.order.numpy()
        assert sorted(order) == list(range(48))
        assert np.array_equal(shown(task.test).reshape(60, 3, 48), flat[:, :, order])
    grey = Pixels(pixels.images[:, :1], pixels.labels, 0.0, 1.0)
    for one, other in zip(sequence.tasks[1:], permuted(grey, grey, 4, **options).tasks[1:], strict=True):
        assert torch.equal(one.test.view.order, other.test.view.order), "the permutation of greyscale images"


def test_a_rotation_turns_each_channel_alike(pixels: Pixels) -> None:
    sequence = rotated(pixels, pixels, 4, degrees=[0, 180, 25], scenario="task", validation=0.2, seed=0)
    assert np.array_equal(shown(sequence.tasks[1].test), IMAGES[:, :, ::-1, ::-1])
    turned = sequence.tasks[2].test
    for channel in range(3):
        grey = Pixels(pixels.images[:, channel : channel + 1], pixels.labels, MEAN[channel], STD[channel])
        alone = Split(grey, turned.rows, turned.labels, turned.view)
        torch.testing.assert_close(turned.images()[:, channel : channel + 1], alone.images())


def test_mean_and_deviation_are_counted_over_all_training_pixels() -> None:
    images = np.concatenate([IMAGES] * 40)  # more than are counted at a time
    images[:, 2] = 7
    mean, std = Images(images, LABELS, IMAGES, LABELS).mean_and_std()
    scaled = images / 255.0
    assert mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), abs=1e-12)
    assert std[:2] == pytest.approx(scaled.std(axis=(0, 2, 3))[:2], abs=1e-12)
    assert std[2] == 1.0, "nothing to divide by"


def test_mean_and_deviation_of_greyscale_images_are_those_that_are_known() -> None:
    from pathlib import Path

    mean, std = MNIST5k().read(Path("unused")).mean_and_std()
    assert mean == pytest.approx((MNIST5k.mean,), abs=0.005)
    assert std == pytest.approx((MNIST5k.std,), abs=0.005)
