"""SupSup: its weights stay as they were drawn, and masks over them classify."""

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.plugins import SupSupPlugin
from cl_powerprop.sparsity import powerpropagate

from .benchmarks import dense_net, make_benchmark, make_strategy

FAN_IN = {"1": 16, "3": 12}


class Thetas(SupervisedPlugin):
    """Keeps the weights after every step, hidden ones as they are stored."""

    def __init__(self, plugin: SupSupPlugin) -> None:
        super().__init__()
        self.plugin = plugin
        self.kept: list[dict[str, Tensor]] = []

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        allocator = self.plugin.allocator
        self.kept.append({name: allocator.theta(name).clone() for name in allocator.weights})


def learn(plugin: SupSupPlugin, alpha: float = 1.0, tasks: int = 2) -> tuple[Any, Thetas]:
    torch.manual_seed(0)
    network = powerpropagate(dense_net(), alpha)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    thetas = Thetas(plugin)
    strategy = make_strategy(network, [plugin, thetas], optimizer, epochs=4)
    for experience in make_benchmark(tasks, count=32).train_stream:
        strategy.train(experience)
    return strategy, thetas


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("weights", ["signed_constant", "kaiming_normal"])
def test_weights_stay_as_drawn_while_masks_are_learned(alpha: float, weights: Any) -> None:
    plugin = SupSupPlugin(0.4, score_lr=10.0, weights=weights)
    _, thetas = learn(plugin, alpha)
    for name, first in thetas.kept[0].items():
        assert all(torch.equal(later[name], first) for later in thetas.kept)
        std = math.sqrt(2.0 / (FAN_IN[name] * 0.4))
        if weights == "signed_constant":
            torch.testing.assert_close(first.abs(), torch.full_like(first, std))
            assert 0.2 < (first > 0).float().mean() < 0.8
        else:
            assert 0.6 * std < float(first.std()) < 1.4 * std
        masks = [plugin.allocator.weights[name].mask_of(task) for task in range(2)]
        assert [int(mask.sum()) for mask in masks] == [round(0.4 * first.numel())] * 2
        assert not torch.equal(*masks)


def test_the_same_seed_draws_the_same_weights() -> None:
    runs = [learn(SupSupPlugin(seed=seed), tasks=1)[1].kept[-1] for seed in (1, 1, 2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in FAN_IN)
    assert not any(torch.equal(runs[0][name], runs[2][name]) for name in FAN_IN)


def test_unknown_weights() -> None:
    with pytest.raises(ConfigurationError, match=r"strategy.weights must be one of signed_constant, kaiming_normal"):
        SupSupPlugin(weights="trained")  # type: ignore[arg-type]
