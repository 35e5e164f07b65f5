"""Random shifts, rotations, crops and reflections of training batches, on the device."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cl_powerprop.limits import check_augmentation

ASPECT = 4 / 3  # a crop is at most this much wider than high, or higher than wide: Szegedy et al. 2015
_TRIES = 10  # a crop that does not fit into the image is drawn again, as torchvision does


@dataclass(frozen=True)
class Augmentation:
    """Changes each image of a batch by its own random amount; pixels from outside an image repeat its edge.

    Args:
        shift: the largest shift in each direction, in pixels.
        rotate: the largest rotation either way, in degrees.
        crop: the least area of a random crop, as a share of the image, which is scaled to the size of the image
            (Szegedy et al., "Going Deeper with Convolutions", 2015); 1 for no crops.
        flip: mirror half of the images, left to right.

    Raises:
        ConfigurationError: for an amount that is negative or not finite, or a crop outside (0, 1].
    """

    shift: float = 0.0
    rotate: float = 0.0
    crop: float = 1.0
    flip: bool = False

    def __post_init__(self) -> None:
        check_augmentation(self.shift, self.rotate, self.crop)

    def __bool__(self) -> bool:
        return self._resamples or self.flip

    @property
    def _resamples(self) -> bool:
        return bool(self.shift or self.rotate or self.crop < 1.0)

    def __call__(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Return the augmented batch.

        Args:
            images: float ``[n, channels, height, width]``, like the result.
            draws: generator on the device of the images.
        """
        if self._resamples:
            grid = functional.affine_grid(self._maps(images, draws), list(images.shape), align_corners=False)
            images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
        if self.flip:
            mirrored = torch.rand(len(images), generator=draws, device=images.device) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
        return images

    def _maps(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Return the affine map from each output pixel to its source, in units of half a side: ``[n, 2, 3]``."""
        count, _, height, width = images.shape
        # For each image one draw for the rotation and one for each direction, all uniform in [-1, 1).
        amounts = torch.rand(3, count, generator=draws, device=images.device) * 2.0 - 1.0
        angle = amounts[0] * math.radians(self.rotate)
        cosine, sine = angle.cos(), angle.sin()
        moves = amounts[1] * (2.0 * self.shift / width), amounts[2] * (2.0 * self.shift / height)
        rows = [cosine, -sine * height / width, moves[0], sine * width / height, cosine, moves[1]]
        maps = torch.stack(rows, dim=1).view(-1, 2, 3)
        if self.crop == 1.0:
            return maps
        sides, centres = self._crops(images, draws)
        turns, moved = maps[:, :, :2], maps[:, :, 2:]
        return torch.cat([turns * sides.unsqueeze(1), turns @ centres.unsqueeze(2) + moved], dim=2)

    def _crops(self, images: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the sides of each crop as shares of the image's, and its centre in half sides: (x, y), ``[n, 2]``."""
        count, _, height, width = images.shape
        drawn = torch.rand(2, _TRIES, count, generator=draws, device=images.device)
        area = self.crop + (1.0 - self.crop) * drawn[0]
        aspect = ((2.0 * drawn[1] - 1.0) * math.log(ASPECT)).exp() * (height / width)
        tried = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=2)
        first = (tried <= 1.0).all(2).byte().argmax(0)  # of those that fit into the image; if none does, the first one
        sides = tried[first, torch.arange(count, device=images.device)].clamp(max=1.0)
        places = torch.rand(count, 2, generator=draws, device=images.device)
        return sides, (1.0 - sides) * (2.0 * places - 1.0)
