"""Random shifts and rotations of training batches, on the device."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from cl_powerprop.limits import check_augmentation


class Augmentation:
    """Shifts and rotates each image of a batch by its own random amount; pixels from outside an image repeat its edge.

    Args:
        shift: the largest shift in each direction, in pixels.
        rotate: the largest rotation either way, in degrees.

    Raises:
        ConfigurationError: for an amount that is negative or not finite.
    """

    def __init__(self, shift: float = 0.0, rotate: float = 0.0) -> None:
        check_augmentation(shift, rotate)
        self.shift = shift
        self.rotate = rotate

    def __call__(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Return the augmented batch.

        Args:
            images: float ``[n, channels, height, width]``, like the result.
            draws: generator on the device of the images.
        """
        count, _, height, width = images.shape
        # For each image one draw for the rotation and one for each direction, all uniform in [-1, 1).
        amounts = torch.rand(3, count, generator=draws, device=images.device) * 2.0 - 1.0
        angle = amounts[0] * math.radians(self.rotate)
        cosine, sine = angle.cos(), angle.sin()
        moves = amounts[1] * (2.0 * self.shift / width), amounts[2] * (2.0 * self.shift / height)
        # The affine map from each output pixel to its source, in units of half a side.
        rows = [cosine, -sine * height / width, moves[0], sine * width / height, cosine, moves[1]]
        grid = functional.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
