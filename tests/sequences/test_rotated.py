"""Rotated images against scipy's rotation, and the angles of tasks."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sequences.rotated import Rotation, angles, rotated
from cl_powerprop.tasks import Pixels, TaskSequence


def blobs(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth images with empty edges, for which methods of interpolation differ little."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 1, height, width))
    images[:, :, 6:-6, 6:-6] = rng.random((count, 1, height - 12, width - 12))
    return np.rint(255 * ndimage.gaussian_filter(images, (0, 0, 0.7, 0.7))).astype(np.uint8)


@pytest.mark.parametrize("degrees", [10.0, 45.0, 133.7, -20.0, 361.0])
@pytest.mark.parametrize("shape", [(20, 20), (20, 26)])
def test_a_rotation_is_that_of_scipy(degrees: float, shape: tuple[int, int]) -> None:
    images = blobs(5, *shape)
    turned = Rotation(degrees)(torch.tensor(images)).numpy()
    expected = ndimage.rotate(images.astype(float), degrees, axes=(3, 2), reshape=False, order=1)
    assert turned.shape == images.shape
    np.testing.assert_allclose(turned, expected, atol=1e-2)


@pytest.mark.parametrize("quarters", [-1, 0, 1, 2, 3, 5])
def test_quarter_turns_move_pixels_exactly(quarters: int) -> None:
    images = torch.randint(0, 256, (3, 1, 7, 7), dtype=torch.uint8)
    turned = Rotation(90.0 * quarters)(images)
    assert turned.dtype == torch.uint8
    assert np.array_equal(turned.numpy(), np.rot90(images.numpy(), quarters, axes=(2, 3)))


def test_a_nearly_quarter_turn_is_nearly_one() -> None:
    """Both branches rotate in the same direction."""
    images = torch.tensor(blobs(2, 20, 20))
    exact, near = Rotation(90.0)(images).float(), Rotation(89.999)(images)
    np.testing.assert_allclose(near.numpy(), exact.numpy(), atol=0.2)


def test_many_images_are_rotated_as_each_alone() -> None:
    images = torch.tensor(blobs(1, 20, 20)).repeat(4500, 1, 1, 1)
    turned = Rotation(30.0)(images)
    assert torch.equal(turned, Rotation(30.0)(images[:1]).expand_as(turned))


def make(**options: Any) -> TaskSequence:
    images = torch.tensor(blobs(30, 20, 20))
    pixels = Pixels(images, torch.arange(30) % 10, 0.25, 0.5)
    settings = {"degrees": [0.0, 30.0, 90.0], "scenario": "task", "validation": 0.2, "seed": 0}
    return rotated(pixels, pixels, 10, **(settings | options))


def test_tasks_have_the_same_images_rotated() -> None:
    sequence = make()
    assert [task.name for task in sequence.tasks] == ["rotation_0", "rotation_30", "rotation_90"]
    for task, degrees in zip(sequence.tasks, (0.0, 30.0, 90.0), strict=True):
        for split in (task.train, task.valid, task.test):
            pixels = split.images() * 0.5 + 0.25
            expected = split.source.images[split.rows]
            if degrees:
                expected = Rotation(degrees)(expected)
            np.testing.assert_allclose(pixels.numpy() * 255, expected.float().numpy(), atol=1e-3)
            assert torch.equal(split.labels, split.source.labels[split.rows])


@pytest.mark.parametrize("degrees", [[0.0, 0.0], [0.0, float("nan")], [float("inf")], [1.0, 1.0 + 1e-9]])
def test_impossible_angles_are_refused(degrees: list[float]) -> None:
    with pytest.raises(ConfigurationError, match=r"benchmark\.angles"):
        make(degrees=degrees)


def test_rotated_tasks_share_their_classes() -> None:
    with pytest.raises(ConfigurationError, match="task or domain"):
        make(scenario="class")


def test_even_steps_reach_the_largest_angle() -> None:
    assert angles(5, None, 180.0, "fixed", 0) == [0.0, 45.0, 90.0, 135.0, 180.0]
    assert angles(1, None, 180.0, "fixed", 0) == [0.0]


def test_listed_angles_are_taken_as_they_are() -> None:
    assert angles(2, [7.0, -3.0], 180.0, "fixed", 0) == [7.0, -3.0]
    with pytest.raises(ConfigurationError, match="lists 2 angles for 3 tasks"):
        angles(3, [7.0, -3.0], 180.0, "fixed", 0)


def test_random_angles_depend_on_seed_and_task() -> None:
    drawn = angles(50, None, 90.0, "random", 3)
    assert drawn == angles(60, None, 90.0, "random", 3)[:50]
    assert drawn != angles(50, None, 90.0, "random", 4)
    assert len(set(drawn)) == 50
    assert 0 <= min(drawn) < 20
    assert 70 < max(drawn) < 90


def test_an_unknown_order_names_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="fixed, random"):
        angles(2, None, 90.0, "sorted", 0)
