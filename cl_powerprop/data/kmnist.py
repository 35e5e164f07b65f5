"""Kuzushiji-MNIST: Clanuwat et al. 2018, arXiv:1812.01718, licence CC BY-SA 4.0."""

from cl_powerprop.data.dataset import register_dataset
from cl_powerprop.data.idx import IdxDataset, IdxFile

FILES = {
    "train_images": IdxFile("train-images-idx3-ubyte", "bdb82020997e1d708af4cf47b453dcf7"),
    "train_labels": IdxFile("train-labels-idx1-ubyte", "e144d726b3acfaa3e44228e80efcd344"),
    "test_images": IdxFile("t10k-images-idx3-ubyte", "5c965bf0a639b31b8f53240b1b52f4d7"),
    "test_labels": IdxFile("t10k-labels-idx1-ubyte", "7320c461ea6c1c855c0b718fb2a4b134"),
}
MIRRORS = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)


@register_dataset("kmnist")
class KMNIST(IdxDataset):
    """60,000 training and 10,000 test images of ten hiragana in cursive script, 28 x 28."""

    name = "kmnist"
    classes = 10
    mean, std = 0.1918, 0.3483
    folder = "KMNIST"
    files = FILES
    mirrors = MIRRORS
