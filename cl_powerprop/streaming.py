"""Pictures as the images of a data set, read from their files whenever they are needed."""

import torch
from torch import Tensor

from cl_powerprop.data.dataset import Dataset
from cl_powerprop.data.pictures import Pictures
from cl_powerprop.tasks import Pixels, of_channels

_CPU = torch.device("cpu")


class PictureStore:
    """Stands where the tensor of all images would be.

    Args:
        pictures: what it reads.
    """

    device = _CPU

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that all images together have: (n, channels, height, width)."""
        return self.pictures.shape

    def index_select(self, dim: int, index: Tensor, /) -> Tensor:
        """Return the images at the given positions, uint8 ``[k, channels, height, width]``; ``dim`` is 0.

        Raises:
            DataError: naming the first file that cannot be decoded.
        """
        return torch.from_numpy(self.pictures.read(index.tolist()))


def stream_pixels(dataset: Dataset, pictures: Pictures) -> Pixels:
    """Return pictures as the images of a data set, which says how they are normalised; they stay on the CPU."""
    mean, std = (of_channels(value, _CPU) for value in (dataset.mean, dataset.std))
    return Pixels(PictureStore(pictures), torch.from_numpy(pictures.labels), mean, std, pictures)
