"""`experiment=mnist_pruning` gives the numbers of a bare loop, to the bit."""

import itertools
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor, nn

from cl_powerprop import compose, powerpropagate, run
from cl_powerprop.data.mnist5k import MNIST5k
from cl_powerprop.registry import CONF
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity.maskable import maskable_weights

from .conftest import Command

pytestmark = pytest.mark.slow

RECIPE = yaml.safe_load((CONF / "experiment" / "mnist_pruning.yaml").read_text())
DENSITIES = RECIPE["sparsity"]["curve"]
STEPS, BATCH = 200, 60
UNIT = 0.87962566103423978  # deviation of a unit normal that is cut off at two deviations


def train(images: Tensor, labels: Tensor, alpha: float, seed: int) -> nn.Sequential:
    """LeNet-300-100 as the paper's notebook trains it: plain SGD, batches of 60, rate 0.1."""
    net = nn.Sequential(
        nn.Flatten(), *(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
    )
    draws = generator(seed, "init")
    with torch.no_grad():
        for layer in (net[1], net[3], net[5]):
            std = math.sqrt(1 / layer.in_features) / UNIT
            shape = layer.weight.shape
            layer.weight.copy_(nn.init.trunc_normal_(torch.empty(shape), 0.0, std, -2 * std, 2 * std, generator=draws))
            layer.bias.zero_()
    powerpropagate(net, alpha)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    order = generator(seed, "order")
    epochs = (torch.randperm(len(labels), generator=order).split(BATCH) for _ in itertools.count())
    for batch in itertools.islice(itertools.chain.from_iterable(epochs), STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()
    return net


@torch.no_grad()
def prune(net: nn.Sequential, images: Tensor, labels: Tensor) -> list[int]:
    """How many test images are right after pruning to each density; the output layer keeps twice the share."""
    layers = [(each.weight.detach().clone(), each.bias) for each in (net[1], net[3], net[5])]
    right = []
    for density in DENSITIES:
        outputs = images.flatten(1)
        for weight, bias in layers:
            share = min(1.0, 2 * density) if weight is layers[-1][0] else density
            kept = weight.abs().flatten().argsort(descending=True, stable=True)[: round(share * weight.numel())]
            pruned = torch.zeros(weight.numel()).index_put((kept,), weight.flatten()[kept]).view_as(weight)
            outputs = nn.functional.linear(outputs.relu() if outputs.shape[1] != 784 else outputs, pruned, bias)
        right.append(int((outputs.argmax(1) == labels).sum()))
    return right


@pytest.mark.parametrize(("alpha", "seed"), [(1.0, 0), (2.0, 3)])
def test_it_is_the_bare_loop(alpha: float, seed: int, tmp_path: Path) -> None:
    words = ("data=mnist5k", f"train.steps={STEPS}", f"model.alpha={alpha}", f"seed={seed}", "progress=false")
    result = run(["experiment=mnist_pruning", *words], tmp_path / "run")
    data = MNIST5k().read(Path("unused"))
    used = len(data.train_labels) - len(data.train_labels) // 12
    images, tested = (
        torch.tensor(each)[:, None].float() / 255 for each in (data.train_images[:used], data.test_images)
    )
    net = train(images, torch.tensor(data.train_labels[:used]), alpha, seed)
    trained = maskable_weights(result.model).values()
    for mine, layer in zip(trained, (net[1], net[3], net[5]), strict=True):
        assert torch.equal(mine.value.detach(), layer.weight.detach())
        assert torch.equal(mine.module.bias, layer.bias)  # type: ignore[arg-type]
    table = pd.read_csv(tmp_path / "run" / "pruning.csv")
    assert list(table) == ["run_id", "density", "eval_task", "accuracy", "loss"]
    assert table.density.tolist() == DENSITIES
    right = prune(net, tested, torch.tensor(data.test_labels))
    assert (table.accuracy * len(tested)).round(6).tolist() == right
    assert right[0] > 0.7 * len(tested), "it has learned something"
    assert result.record["metrics"]["average_accuracy"] == table.accuracy[0], (
        "density 1 is the network as it was trained"
    )


def test_it_is_the_setting_of_the_recorded_numbers() -> None:
    recorded = pd.read_csv(Path(__file__).parents[2] / "benchmarks" / "mnist_pruning" / "pruning.csv")
    assert sorted(recorded.density.unique(), reverse=True) == DENSITIES
    config = compose(["experiment=mnist_pruning"])
    assert (config.train.steps, config.train.batch_size, config.optimizer.lr) == (50000, 60, 0.1)
    assert round(config.benchmark.validation * 60000) == 5000


def test_a_multirun_of_it_is_compared_by_alpha(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("experiment=mnist_pruning", "data=digits", "train.steps=30", "progress=false", "hydra/launcher=basic")
    assert command("run", "-m", *words, "model.alpha=1,2", "seed=0,1", f"run_dir={tmp_path / 'runs'}") == 0
    assert len(list((tmp_path / "runs").glob("*/pruning.csv"))) == 4
    capsys.readouterr()
    assert command("compare", tmp_path / "runs", "--out", tmp_path / "out") == 0
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert set(summary.group) == {"naive, alpha 1", "naive, alpha 2"}
    assert (tmp_path / "out" / "accuracy_against_density.png").exists()


def test_training_that_diverges_says_so(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "experiment=mnist_pruning",
        "data=digits",
        "train.steps=50",
        "optimizer.lr=1e9",
        f"run_dir={tmp_path / 'run'}",
    )
    assert command("run", *words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "diverged in task 0" in line
    assert not (tmp_path / "run" / "pruning.csv").exists()
