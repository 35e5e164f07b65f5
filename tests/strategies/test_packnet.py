"""PackNet's shares against plain counting."""

import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.plugins import PackNetPlugin

from .benchmarks import dense_net, make_benchmark, make_strategy

pytestmark = pytest.mark.cuda

SIZES = {"1": 16 * 12, "3": 12 * 3}


def learn(plugin: PackNetPlugin, tasks: int, *others: SupervisedPlugin, epochs: int = 1) -> PackNetPlugin:
    strategy = make_strategy(dense_net(), [*others, plugin], epochs=epochs)
    for experience in make_benchmark(tasks, count=32).train_stream:
        strategy.train(experience)
    return plugin


def new_weights(plugin: PackNetPlugin, layer: str) -> list[int]:
    return [row.newly_frozen for row in plugin.allocator.history if row.layer == layer]


@pytest.mark.parametrize("layer", SIZES)
@pytest.mark.parametrize("tasks", [1, 2, 5, 7])
def test_equal_shares_use_up_the_very_last_weight(tasks: int, layer: str) -> None:
    plugin = learn(PackNetPlugin.for_tasks(tasks), tasks)
    counts, size = new_weights(plugin, layer), SIZES[layer]
    assert len(counts) == tasks
    assert sum(counts) == size
    assert all(math.floor(size / tasks) <= count <= math.ceil(size / tasks) for count in counts)
    assert plugin.allocator.capacity_used == 1.0
    assert all(weight.frozen.all() for weight in plugin.allocator.weights.values())


@pytest.mark.parametrize("shares", [0.25, [0.5, 0.125, 0.25]])
def test_shares_of_each_task(shares: float | list[float]) -> None:
    plugin = learn(PackNetPlugin.for_tasks(3, shares), 3)
    each = [shares] * 3 if isinstance(shares, float) else shares
    for layer, size in SIZES.items():
        for count, share in zip(new_weights(plugin, layer), each, strict=True):
            assert abs(count - share * size) <= 1
        assert sum(new_weights(plugin, layer)) == round(sum(each) * size)


def test_keeps_the_largest_free_weights_and_all_frozen_ones() -> None:
    class BeforeTheChoice(SupervisedPlugin):
        """Comes before PackNet: keeps the network just before each choice."""

        def __init__(self) -> None:
            super().__init__()
            self.weights: list[dict[str, Tensor]] = []

        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            self.weights.append({name: strategy.model[int(name)].weight.detach().clone() for name in SIZES})

    before = BeforeTheChoice()
    plugin = learn(PackNetPlugin([0.2, 0.3, 0.1]), 3, before)
    for layer, size in SIZES.items():
        frozen: set[int] = set()
        boundaries = [0, round(0.2 * size), round(0.5 * size), round(0.6 * size)]
        for task in range(3):
            magnitude = before.weights[task][layer].abs().flatten().tolist()
            free = sorted(set(range(size)) - frozen, key=lambda index: (-magnitude[index], index))
            frozen |= set(free[: boundaries[task + 1] - boundaries[task]])
            mask = plugin.allocator.weights[layer].mask_of(task)
            assert set(mask.flatten().nonzero().flatten().tolist()) == frozen


def test_ties_never_take_more_than_the_share() -> None:
    plugin = PackNetPlugin([0.25, 0.25])
    network = dense_net()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.5)
    strategy = make_strategy(network, [plugin], torch.optim.SGD(network.parameters(), lr=0.0), epochs=1)
    strategy.train(make_benchmark(1).train_stream[0])
    assert {layer: new_weights(plugin, layer) for layer in SIZES} == {"1": [48], "3": [9]}


@pytest.mark.parametrize("shares", [0.0, -0.1, 1.01, math.nan, math.inf, [], [0.5, 0.0], [0.5, math.nan], [0.6, 0.5]])
def test_impossible_shares(shares: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.shares"):
        PackNetPlugin(shares)


@pytest.mark.parametrize(("tasks", "shares"), [(3, 0.4), (11, 0.1), (2, [0.6, 0.5]), (3, [0.2, 0.2]), (1, [0.2, 0.2])])
def test_shares_that_do_not_fit_the_tasks(tasks: int, shares: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"strategy\.shares"):
        PackNetPlugin.for_tasks(tasks, shares)


@pytest.mark.parametrize("tasks", [3, 6, 7, 10, 49, 93])
def test_shares_that_fit_to_rounding(tasks: int) -> None:
    assert PackNetPlugin.for_tasks(tasks, 1.0 / tasks).shares == 1.0 / tasks
    assert len(PackNetPlugin.for_tasks(tasks).shares) == tasks
    assert len(PackNetPlugin.for_tasks(tasks, [1.0 / tasks] * tasks).shares) == tasks


@pytest.mark.parametrize("tasks", [0, -1])
def test_no_tasks_at_all(tasks: int) -> None:
    with pytest.raises(ConfigurationError):
        PackNetPlugin.for_tasks(tasks)


@pytest.mark.parametrize(("shares", "allowed"), [(0.4, 2), ([0.3, 0.3], 2)])
def test_one_task_too_many_is_refused_before_it_trains(shares: Any, allowed: int) -> None:
    plugin = PackNetPlugin(shares)
    strategy = make_strategy(dense_net(), [plugin], epochs=1)
    *possible, extra = make_benchmark(allowed + 1, count=32).train_stream
    for experience in possible:
        strategy.train(experience)
    step = strategy.clock.train_iterations
    with pytest.raises(ConfigurationError, match=f"task {allowed}"):
        strategy.train(extra)
    assert strategy.clock.train_iterations == step


def test_without_reuse_masks_are_disjoint_and_earlier_weights_hidden() -> None:
    plugin = PackNetPlugin.for_tasks(3, reuse="none")
    seen: list[bool] = []

    class Watches(SupervisedPlugin):
        def before_backward(self, strategy: Any, **_: Any) -> None:
            weight = plugin.allocator.weights["1"]
            seen.append(bool((strategy.model[1].weight[weight.frozen] == 0.0).all()))

    learn(plugin, 3, Watches(), epochs=2)
    assert seen
    assert all(seen)
    for weight in plugin.allocator.weights.values():
        masks = torch.stack([weight.mask_of(task) for task in range(3)])
        assert (masks.sum(0) == 1).all(), "three equal shares, each of one task"


def test_a_mask_that_chooses_is_the_share_of_all_weights() -> None:
    plugin = learn(PackNetPlugin(0.6, reuse="chosen"), 3)
    assert 0.6 < plugin.allocator.capacity_used <= 1.0
    for layer, size in SIZES.items():
        rows = [row for row in plugin.allocator.history if row.layer == layer]
        assert [row.kept for row in rows] == pytest.approx([0.6 * size] * 3, abs=1.0)
        assert all(row.newly_frozen < row.kept for row in rows[1:])
    theta, weight = plugin.allocator.theta("1").abs(), plugin.allocator.weights["1"]
    last = weight.mask_of(2)
    assert theta[last].min() >= theta[~last].max()
