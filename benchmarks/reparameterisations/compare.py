"""Powerpropagation, the product of two factors and ReWA's step on MNIST: pruned after training, and under a fixed mask.

    CL_POWERPROP_DATA=... python benchmarks/reparameterisations/compare.py OUT

LeNet-300-100, plain SGD, batches of 60. *pruned*: trained dense with weight decay, then each hidden layer is pruned by
magnitude, without retraining. *static*: hidden layers have a random mask from the start, and the weights in it are
scaled up so that units keep the variance of their inputs. The output layer stays dense. For each method, rate
and decay are those with the highest validation accuracy of seed 0 at these densities; seeds 1 to 3 then give the test
accuracies.
Finished trainings are kept in OUT/runs.csv and are not repeated: a call that was cut off goes on.
"""

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from cl_powerprop.assemble import make_optimizer
from cl_powerprop.data.dataset import DataConfig
from cl_powerprop.networks.build import build_model
from cl_powerprop.optimizers.sgd import SGDConfig
from cl_powerprop.seeding import derive_seed, generator
from cl_powerprop.source import DataSource
from cl_powerprop.sparsity import maskable_weights, rank
from cl_powerprop.tasks import Pixels, Split
from cl_powerprop.training.loaders import TensorLoader

HIDDEN = ("features.1", "features.3")
VALIDATION = 5000
BATCH = 60
DENSITIES = {"pruned": (0.02, 0.01), "static": (0.02,)}
RATES = {"pruned": (0.3, 1.0), "static": (0.1, 0.3, 1.0)}
DECAYS = {"pruned": (1e-3, 3e-3), "static": (0.0,)}
STEPS = {"pruned": 4000, "static": 3000}
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Data:
    """Samples to train on, to choose settings by, and to test."""

    train: Split
    valid: Split
    test: Split


@dataclass(frozen=True)
class Method:
    """A reparameterisation, and the exponent of the step's scale (None: Powerpropagation's)."""

    alpha: float
    reparam: str = "powerprop"
    power: float | None = None


METHODS = {
    "alpha 1": Method(1.0),
    "alpha 2": Method(2.0),
    "alpha 3": Method(3.0),
    "product": Method(2.0, "product"),
    "alpha 2, power 0": Method(2.0, power=0.0),
    "alpha 3, power 0": Method(3.0, power=0.0),
}


def read(split: Pixels, rows: slice) -> Split:
    """Return some of the images, with pixels in [0, 1]."""
    pixels = Pixels(split.images[rows], split.labels[rows], mean=0.0, std=1.0)
    return Split(pixels, torch.arange(len(pixels.labels)), pixels.labels)


def mask_at_random(network: nn.Module, density: float, seed: int) -> None:
    """Give the hidden layers a random mask, and the weights in it the variance that the whole layer would need."""
    draws = generator(seed, "mask")
    for name, weight in maskable_weights(network).items():
        if name in HIDDEN:
            with torch.no_grad():
                setattr(weight.module, weight.tensor, weight.value / math.sqrt(density))
            ranks = rank(torch.rand(weight.value.shape, generator=draws))
            weight.mask().set_training_view(ranks < round(density * ranks.numel()))


def prune(network: nn.Module, density: float) -> None:
    """Keep the largest weights of the hidden layers."""
    for name, weight in maskable_weights(network).items():
        if name in HIDDEN:
            masked = weight.mask()
            masked.set_training_view(rank(masked.theta(weight.stored).abs()) < round(density * weight.value.numel()))


def train(method: Method, lr: float, decay: float, seed: int, steps: int, train: Split, density: float) -> nn.Module:
    """Return the network after some steps."""
    network = build_model(
        "lenet_300_100",
        sample_shape=(1, 28, 28),
        classes=[10],
        heads="shared",
        bias="frozen",
        hidden=[300, 100],
        alpha=method.alpha,
        reparam=method.reparam,
        init_seed=derive_seed(seed, "init"),
    )
    if density < 1.0:
        mask_at_random(network, density, seed)
    config = SGDConfig(name="sgd", lr=lr, weight_decay=decay, power=method.power, momentum=0.0, nesterov=False)
    optimizer = make_optimizer(config, network, method.alpha)
    loader = TensorLoader(train, 0, BATCH, generator(seed, "order"))
    for images, labels, _ in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network


@torch.no_grad()
def accuracy(network: nn.Module, split: Split) -> float:
    """Return the share of samples that are classified right; 0 for a network that diverged."""
    logits = network(split.images())
    return float((logits.argmax(1) == split.labels).float().mean()) if logits.isfinite().all() else 0.0


def measure(
    experiment: str, method: Method, lr: float, decay: float, seed: int, densities: Sequence[float], data: Data
) -> Iterator[tuple[float, float, float]]:
    """Yield (density, validation accuracy, test accuracy) of one training, or of one for each density."""
    pruned = experiment == "pruned"
    for density in (1.0,) if pruned else densities:
        network = train(method, lr, decay, seed, STEPS[experiment], data.train, density)
        for left in (1.0, *densities) if pruned else (density,):
            if pruned:
                prune(network, left)
            yield left, accuracy(network, data.valid), accuracy(network, data.test)


class Rows:
    """Accuracies in ``runs.csv``; a training whose rows are there is not repeated."""

    columns = ("experiment", "method", "lr", "decay", "seed", "density", "valid", "test")

    def __init__(self, path: Path, data: Data) -> None:
        self.path, self.data = path, data
        self.table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(self.columns))

    def of(self, densities: Sequence[float], *key: Any) -> pd.DataFrame:
        """Return the rows of one setting and seed (experiment, method, lr, decay, seed)."""
        found = self._select(key)
        missing = [density for density in densities if density not in set(found["density"])]
        if missing:
            experiment, name, lr, decay, seed = key
            measured = list(measure(experiment, METHODS[name], lr, decay, seed, missing, self.data))
            new = pd.DataFrame([(*key, *row) for row in measured], columns=list(self.columns))
            self.table = new if self.table.empty else pd.concat([self.table, new], ignore_index=True)
            self.table.round(4).to_csv(self.path, index=False)
            print(new.round(3).to_string(header=False, index=False), flush=True)
        return self._select(key)

    def _select(self, key: tuple[Any, ...]) -> pd.DataFrame:
        same = [self.table[column] == value for column, value in zip(self.columns, key, strict=False)]
        return self.table[np.logical_and.reduce(same)] if len(self.table) else self.table


def compare(rows: Rows) -> pd.DataFrame:
    """Return mean and deviation of the test accuracy of every method at every density, with its chosen setting."""
    summary = []
    for experiment, densities in DENSITIES.items():
        for name in METHODS:
            settings = list(itertools.product(RATES[experiment], DECAYS[experiment]))
            tried = pd.concat([rows.of(densities, experiment, name, *each, 0) for each in settings])
            sparse = tried[tried["density"].isin(densities)]
            lr, decay = sparse.groupby(["lr", "decay"])["valid"].mean().idxmax()
            final = pd.concat([rows.of(densities, experiment, name, lr, decay, seed) for seed in SEEDS])
            for density, test in final.groupby("density")["test"]:
                summary.append((experiment, density, name, lr, decay, test.mean(), test.std()))
    return pd.DataFrame(
        summary, columns=["experiment", "density", "method", "lr", "decay", "accuracy", "deviation"]
    ).sort_values(["experiment", "density"], ascending=[True, False], kind="stable")


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train_images, test_images = DataSource(DataConfig(name="mnist"), torch.device("cpu")).pixels()
    parts = (read(train_images, slice(None, -VALIDATION)), read(train_images, slice(-VALIDATION, None)))
    found = compare(Rows(out / "runs.csv", Data(*parts, read(test_images, slice(None)))))
    found.round(4).to_csv(out / "summary.csv", index=False)
    print(found.to_string(index=False, float_format="{:.4g}".format))
