"""Random shifts and rotations of training batches, on the device."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from cl_powerprop.errors import ConfigurationError


class Augmentation:
    """Moves and turns every picture of a batch by an amount of its own; what comes in from outside repeats the edge.

    Args:
        shift: the largest move in each direction, in pixels.
        rotate: the largest turn either way, in degrees.

    Raises:
        ConfigurationError: for an amount that is negative or not finite.
    """

    def __init__(self, shift: float = 0.0, rotate: float = 0.0) -> None:
        for option, value in (("shift", shift), ("rotate", rotate)):
            if not 0 <= value < math.inf:
                raise ConfigurationError(f"train.{option} must be a finite number of at least 0, not {value}")
        self.shift = shift
        self.rotate = rotate

    def __call__(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Return the batch ``[n, channels, height, width]`` augmented by what ``draws`` gives."""
        count, _, height, width = images.shape
        # One draw a picture for the turn, and one for each direction, all even in [-1, 1).
        amounts = torch.rand(3, count, generator=draws, device=images.device) * 2.0 - 1.0
        angle = amounts[0] * math.radians(self.rotate)
        cosine, sine = angle.cos(), angle.sin()
        moves = amounts[1] * (2.0 * self.shift / width), amounts[2] * (2.0 * self.shift / height)
        # In units of half a side, where each pixel comes from.
        rows = [cosine, -sine * height / width, moves[0], sine * width / height, cosine, moves[1]]
        grid = functional.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
