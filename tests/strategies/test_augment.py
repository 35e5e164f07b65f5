"""Augmented batches against shifts and rotations by the same random amounts."""

import pytest
import torch

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sequences.rotated import Rotation
from cl_powerprop.training.augment import Augmentation


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int, value: float = -0.5) -> torch.Tensor:
    """Images with a blot in the middle of an even background."""
    images = torch.full((count, 1, 21, 21), value)
    images[:, :, 8:13, 7:14] += torch.linspace(1, 2, 7)
    return images


def test_without_shift_and_rotation_nothing_changes() -> None:
    images = smooth(3)
    torch.testing.assert_close(Augmentation()(images, draws()), images, atol=1e-5, rtol=0)


def test_whole_shifts_move_pixels() -> None:
    images = smooth(200)
    moved = Augmentation(shift=3)(images, draws())
    amounts = 3 * (torch.rand(3, 200, generator=draws()) * 2 - 1)
    rows = torch.arange(21.0)
    weight = images - images.min()
    shifted = moved - images.min()
    for axis, amount in ((3, amounts[1]), (2, amounts[2])):
        view = (1, 1, 1, 21) if axis == 3 else (1, 1, 21, 1)

        def centre(image: torch.Tensor, view: tuple[int, ...] = view) -> torch.Tensor:
            return (image * rows.view(view)).sum((1, 2, 3)) / image.sum((1, 2, 3))

        # A grid that samples further to the right moves the image to the left.
        torch.testing.assert_close(centre(shifted) - centre(weight), -amount, atol=0.02, rtol=0)


def test_turns_are_those_of_a_rotation() -> None:
    images = smooth(5)
    turned = Augmentation(rotate=40)(images, draws())
    amounts = 40 * (torch.rand(3, 5, generator=draws())[0] * 2 - 1)
    for image, result, degrees in zip(images, turned, amounts, strict=True):
        ground = image.min()
        expected = Rotation(float(degrees))((image - ground).unsqueeze(0))[0] + ground
        torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


def test_pixels_from_outside_repeat_the_edge() -> None:
    moved = Augmentation(shift=5, rotate=180)(smooth(50), draws())
    assert moved.min() == pytest.approx(-0.5, abs=1e-4)


def test_images_differ_and_depend_on_the_generator() -> None:
    augment, images = Augmentation(2, 20), smooth(10)
    one = augment(images, draws(1))
    torch.rand(5)
    assert torch.equal(one, augment(images, draws(1)))
    assert not torch.equal(one, augment(images, draws(2)))
    assert len({tuple(image.flatten().tolist()) for image in one}) == 10


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("option", ["shift", "rotate"])
def test_impossible_amounts(option: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"train.{option}"):
        Augmentation(**{option: value})
