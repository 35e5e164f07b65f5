"""Fashion-MNIST: Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747, licence MIT."""

from cl_powerprop.data.dataset import register_dataset
from cl_powerprop.data.idx import IdxDataset, IdxFile

FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"
    ),
}
MIRRORS = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)


@register_dataset("fashion_mnist")
class FashionMNIST(IdxDataset):
    """60,000 training and 10,000 test images of ten kinds of clothing, 28 x 28."""

    name = "fashion_mnist"
    classes = 10
    mean, std = 0.286, 0.353
    folder = "FashionMNIST"
    files = FILES
    mirrors = MIRRORS
