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
    assert torch.equal(Augmentation()(images, draws()), images)


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


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, float("nan")])
def test_impossible_crops(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"train.crop must be in \(0, 1\]"):
        Augmentation(crop=value)


def coordinates(count: int, height: int, width: int) -> torch.Tensor:
    """Images whose two channels are the coordinates x and y of each pixel, in half sides from the centre."""
    x = (2 * torch.arange(width) + 1.0) / width - 1
    y = (2 * torch.arange(height) + 1.0) / height - 1
    return torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width)]).expand(count, 2, height, width)


def boxes(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sides and centres ``[n, 2]`` of crops, read off the coordinates that they show in their inner half."""
    _, _, height, width = images.shape
    inner = images[:, :, height // 4 : -height // 4, width // 4 : -width // 4]
    slopes = inner[:, 0].diff(dim=2).mean((1, 2)) * width / 2, inner[:, 1].diff(dim=1).mean((1, 2)) * height / 2
    return torch.stack(slopes, dim=1), inner.mean((2, 3))


def test_crops_show_a_part_of_the_image_of_the_area_and_aspect_asked_for() -> None:
    height, width, least = 40, 60, 0.3
    sides, centres = boxes(Augmentation(crop=least)(coordinates(2000, height, width), draws()))
    assert (sides <= 1 + 1e-4).all()
    assert (centres.abs() <= 1 - sides + 1e-3).all(), "a crop lies within its image"
    area, aspect = sides.prod(1), sides[:, 0] * width / (sides[:, 1] * height)
    assert area.min() == pytest.approx(least, abs=0.01)
    assert area.max() == pytest.approx(4 / 3 * height / width, abs=0.02), "the largest that fits"
    assert aspect.min() == pytest.approx(3 / 4, abs=0.02)
    assert aspect.max() == pytest.approx(4 / 3, abs=0.02)
    assert centres.mean(0).abs().max() < 0.03


def test_crops_are_distributed_as_torchvision_s() -> None:
    from torchvision.transforms import RandomResizedCrop

    image = torch.zeros(1, 100, 100)
    drawn = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    theirs = torch.tensor([(width / 100, height / 100) for _, _, height, width in drawn])
    sides, _ = boxes(Augmentation(crop=0.08)(coordinates(3000, 40, 40), draws()))
    for mine, other in zip(sides.T, theirs.T, strict=True):
        quantiles = torch.linspace(0.05, 0.95, 19)
        torch.testing.assert_close(mine.quantile(quantiles), other.quantile(quantiles), atol=0.025, rtol=0)


def test_a_crop_of_a_turned_image_is_the_crop_of_that_image() -> None:
    """One interpolation shows what turning first and cropping then would, away from the edges."""
    images = smooth(8)
    both = Augmentation(rotate=30, crop=0.5)(images, draws())
    generator = draws()
    turned = Augmentation(rotate=30)(images, generator)
    sides, centres = Augmentation(crop=0.5)._crops(images, generator)
    for result, image, side, centre in zip(both, turned, sides, centres, strict=True):
        matrix = torch.stack([side.diag()[0], side.diag()[1]])
        grid = torch.nn.functional.affine_grid(
            torch.cat([matrix, centre.unsqueeze(1)], 1).unsqueeze(0), [1, 1, 21, 21], align_corners=False
        )
        expected = torch.nn.functional.grid_sample(image.unsqueeze(0), grid, align_corners=False, padding_mode="border")
        assert (result - expected[0]).abs().mean() < 0.05


def test_half_of_the_images_are_mirrored_to_the_bit() -> None:
    images = torch.rand(1000, 3, 5, 6)
    flipped = Augmentation(flip=True)(images, draws())
    mirrored = [torch.equal(one, image.flip(-1)) for one, image in zip(flipped, images, strict=True)]
    same = [torch.equal(one, image) for one, image in zip(flipped, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 430 < sum(mirrored) < 570


def test_augmentation_says_whether_it_does_anything() -> None:
    assert not Augmentation()
    assert all((Augmentation(shift=1), Augmentation(rotate=1), Augmentation(crop=0.9), Augmentation(flip=True)))
