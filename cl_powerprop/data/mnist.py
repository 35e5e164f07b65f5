"""The full MNIST: Y. LeCun, C. Cortes, C. J. C. Burges, licence CC BY-SA 3.0."""

from cl_powerprop.data.dataset import register_dataset
from cl_powerprop.data.idx import IdxDataset, IdxFile

FILES = {
    "train_images": IdxFile(
        "train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"
    ),
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"
    ),
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


@register_dataset("mnist")
class MNIST(IdxDataset):
    """60,000 training and 10,000 test digits, 28 x 28."""

    name = "mnist"
    classes = 10
    mean, std = 0.1307, 0.3081
    folder = "MNIST"
    files = FILES
    mirrors = MIRRORS
