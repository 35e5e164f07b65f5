"""What a method keeps, against plain counting."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.evaluation.cost import measure_cost
from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.sparsity.huffman import huffman_bits
from cl_powerprop.sparsity.mask_coding import encode_masks
from cl_powerprop.sparsity.packing import pack

TASKS, PIXELS, HIDDEN, CLASSES = 9, 36, 20, (3, 5, 2, 4, 3, 3, 2, 4, 3)


def network(**options: Any) -> nn.Module:
    given = {"heads": "per_task", "bias": "none", "classes": CLASSES, "hidden": [HIDDEN]} | options
    return build_model("mlp", sample_shape=[1, 6, 6], **given)


def with_masks(model: nn.Module, unmasked: Any = "frozen", share: float = 0.1) -> list[Tensor]:
    """Give each task a random mask over the only masked layer, and return them."""
    allocator = MaskAllocator(model, unmasked, exclude=(TaskHeads,))
    masks = []
    for task in range(TASKS):
        draws = generator(task, "masks")
        allocator.begin_task(draws)
        (name,) = allocator.weights
        masks.append(torch.rand(HIDDEN, PIXELS, generator=draws) < share)
        allocator.propose({name: masks[-1]})
        for parameter in model.parameters():  # as training does
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        allocator.end_task()
    return masks


def test_one_network_for_all_tasks_with_a_shared_head_has_size_one() -> None:
    cost = measure_cost(network(heads="shared", classes=[5] * TASKS, bias="frozen"))
    assert cost.metrics() == {"total_size": 1.0, "mask_bits_stored": 0, "wsn_capacity": 1.0}
    assert cost.total == 32 * (PIXELS * HIDDEN + HIDDEN + 5 * HIDDEN + 5)


def test_every_head_counts_and_the_widest_is_that_of_one_network() -> None:
    cost = measure_cost(network())
    assert (cost.weights, cost.heads, cost.others) == (32 * PIXELS * HIDDEN, 32 * HIDDEN * sum(CLASSES), 0)
    assert cost.one_network == 32 * HIDDEN * (PIXELS + 5)


def test_independent_networks_count_in_full() -> None:
    cost = measure_cost(network(independent=True, bias="frozen"))
    each = [PIXELS * HIDDEN + HIDDEN + HIDDEN * count + count for count in CLASSES]
    assert (cost.total, cost.one_network) == (32 * sum(each), 32 * max(each))
    assert cost.metrics()["wsn_capacity"] == TASKS


def test_two_factors_of_a_weight_are_one_weight() -> None:
    assert measure_cost(network(reparam="product", alpha=2.0)).total == measure_cost(network()).total


@pytest.mark.parametrize(("bias", "kept"), [("none", 0), ("frozen", 1), ("per_task", TASKS)])
def test_weights_of_some_mask_and_biases_count(bias: str, kept: int) -> None:
    model = network(bias=bias)
    masks = with_masks(model, "frozen" if bias == "none" else bias)
    used = int(torch.stack(masks).any(0).sum())
    assert 0 < used < PIXELS * HIDDEN
    cost = measure_cost(model, buffers=100, importances=7)
    heads = sum(count * HIDDEN + (count if bias != "none" else 0) for count in CLASSES)
    stream = encode_masks(torch.stack([pack(mask) for mask in masks]), masks[0].shape)
    assert (cost.weights, cost.heads, cost.others) == (32 * used, 32 * heads, 32 * kept * HIDDEN)
    assert (cost.masks, cost.masks_uncompressed) == (8 * len(stream), TASKS * PIXELS * HIDDEN)
    assert cost.total == 32 * (used + heads + kept * HIDDEN) + 8 * len(stream) + 107
    assert cost.metrics()["total_size"] == pytest.approx(cost.total / cost.one_network)
    counted = sum(reference_huffman(masks[first : first + 7]) for first in (0, 7))
    assert cost.metrics()["wsn_capacity"] == pytest.approx((used + counted / 32) / (PIXELS * HIDDEN))
    assert dict(cost.rows())["total"] == cost.total


def test_statistics_of_norms_count_for_each_task() -> None:
    architecture = {"sample_shape": [1, 16, 16], "classes": [2] * 3, "heads": "per_task", "width": 4, "norm": "batch"}
    model = build_model("convnet", bias="per_task", **architecture)
    allocator = MaskAllocator(model, "per_task", exclude=(TaskHeads,))
    before = measure_cost(model)
    numbers = sum(value.numel() for name, value in model.named_parameters() if value.dim() == 1 and "head" not in name)
    numbers += sum(value.numel() for name, value in model.named_buffers() if name.endswith("original"))
    assert before.others == 32 * numbers > 0
    for task in range(3):
        allocator.begin_task(generator(task, "test"))
        allocator.end_task()
    after = measure_cost(model)
    assert after.others == 3 * before.others
    assert after.one_network == before.one_network


def test_a_network_of_ones_own_counts_what_it_has() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    cost = measure_cost(model)
    assert cost.total == cost.one_network == 32 * (40 + 12 + 3 + 4 * 3)
    without = measure_cost(nn.ReLU()).metrics()
    assert (without["total_size"], without["wsn_capacity"]) == (None, None)


def reference_huffman(masks: list[Tensor]) -> int:
    """Build the tree of symbols as lists, and add up the lengths of all codes."""
    symbols = list(zip(*(mask.flatten().tolist() for mask in masks), strict=True))
    trees = [(symbols.count(symbol), [symbol]) for symbol in product((False, True), repeat=len(masks))]
    trees = [tree for tree in trees if tree[0]]
    lengths = dict.fromkeys(symbols, 0)
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[0])
        (one, left), (other, right), *rest = trees
        for symbol in left + right:
            lengths[symbol] += 1
        trees = [(one + other, left + right), *rest]
    return sum(lengths[symbol] for symbol in symbols)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("weights", [1, 8, 1001])
def test_huffman_codes_are_those_of_a_tree(density: float, weights: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_powerprop.sparsity.huffman._BYTES_AT_A_TIME", 10)
    masks = [torch.rand(weights, generator=generator(task, "masks")) < density for task in range(10)]
    expected = reference_huffman(masks[:7]) + reference_huffman(masks[7:])
    assert huffman_bits(torch.stack([pack(mask) for mask in masks]), weights) == expected


def test_huffman_of_no_masks_is_nothing() -> None:
    assert huffman_bits(torch.empty(0, 3, dtype=torch.uint8), 20) == 0
