"""Which weights of a model get masks, how they are drawn anew, and what cannot be combined with masks."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator, maskable_weights, powerpropagate

from .networks import KINDS, make_network

NAMES = {
    "lstm": [*(f"layer.weight_{part}_l{layer}" for layer in (0, 1) for part in ("ih", "hh")), "output"],
    "lstm_projected": ["layer.weight_ih_l0", "layer.weight_hh_l0", "layer.weight_hr_l0", "output"],
    "gru_cell": ["cell.weight_ih", "cell.weight_hh", "output"],
    "attention": [*(f"attention.{name}_proj_weight" for name in "qkv"), "attention.out_proj", "output"],
    "transformer": [
        *(
            f"encoder.layers.{layer}.{name}"
            for layer in (0, 1)
            for name in ("self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2")
        ),
        "output",
    ],
}


@pytest.mark.parametrize("kind", NAMES)
def test_recurrent_and_attention_weights_have_masks(kind: str) -> None:
    network = make_network(kind)
    matrices = sum(value.numel() for value in network.parameters() if value.dim() > 1)
    assert list(maskable_weights(network)) == NAMES[kind]
    allocator = MaskAllocator(network)
    assert list(allocator.weights) == NAMES[kind]
    assert sum(weight.owner.numel() for weight in allocator.weights.values()) == matrices
    assert allocator.coverage == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_drawn_anew_as_torch_draws_them(kind: str) -> None:
    """Over many draws, each weight has the bound and the spread of a new layer's."""
    many = [make_network(kind, seed) for seed in range(40)]
    allocator = MaskAllocator(make_network(kind))
    allocator.begin_task(generator(0, "test", 0))
    allocator.propose({name: torch.zeros_like(weight.frozen) for name, weight in allocator.weights.items()})
    allocator.end_task()
    drawn: dict[str, list[torch.Tensor]] = {name: [] for name in allocator.weights}
    for task in range(40):
        allocator.begin_task(generator(0, "test", task))
        for name, values in drawn.items():
            values.append(allocator.theta(name).clone())
    for name, values in drawn.items():
        fresh = torch.cat([maskable_weights(model)[name].value.detach().flatten() for model in many])
        ours = torch.cat([value.flatten() for value in values])
        assert float(ours.std()) == pytest.approx(float(fresh.std()), rel=0.15), name
        assert float(ours.abs().max()) == pytest.approx(float(fresh.abs().max()), rel=0.15), name


class Reader(nn.Module):
    def __init__(self, words: int = 50) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 4)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.output = nn.Linear(4, 3)


def test_coverage_counts_what_is_trained_without_a_mask() -> None:
    allocator = MaskAllocator(Reader())
    masked = 2 * 16 * 4 + 12
    assert allocator.uncovered == {"embedding.weight": 200}
    assert allocator.coverage == masked / (masked + 200)
    excluded = MaskAllocator(Reader(), exclude=(nn.Embedding,))
    assert (excluded.uncovered, excluded.coverage) == ({}, 1.0)


def test_weights_that_are_not_trained_keep_their_values() -> None:
    """A pretrained part is no capacity: it must not be drawn anew when a task begins."""
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    network[0].requires_grad_(False)
    before = network[0].weight.detach().clone()
    allocator = MaskAllocator(network)
    assert list(allocator.weights) == ["2"]
    for task in range(2):
        allocator.begin_task(generator(0, "test", task))
        allocator.propose({"2": torch.zeros(2, 4, dtype=torch.bool)})
        allocator.end_task()
    assert torch.equal(network[0].weight, before)
    assert not network[0].weight.requires_grad


CANNOT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "prune": (lambda net: prune.l1_unstructured(net[0], "weight", 0.5), "layer 0 is computed .* prune.remove"),
    "old weight_norm": (lambda net: weight_norm(net[0]), "layer 0 is computed .* remove_weight_norm"),
    "old spectral_norm": (lambda net: spectral_norm(net[0]), "layer 0 is computed .* remove_spectral_norm"),
    "weight_norm": (lambda net: parametrizations.weight_norm(net[0]), "layer 0 is parametrised by _WeightNorm"),
    "orthogonal": (lambda net: parametrizations.orthogonal(net[0]), "layer 0 is parametrised by _Orthogonal"),
    "under": (
        lambda net: nn.utils.parametrize.register_parametrization(net[0], "weight", nn.Identity()),
        "layer 0 is parametrised by Identity, which cannot be combined with masks; remove it with .*remove_param",
    ),
    "on": (
        lambda net: nn.utils.parametrize.register_parametrization(powerpropagate(net, 2.0)[0], "weight", nn.Identity()),
        "layer 0 is parametrised by Identity",
    ),
    "lazy": (lambda net: net.append(nn.LazyLinear(3)), "layer 3 has no shape yet; send one batch"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("what", CANNOT)
def test_what_cannot_be_combined_with_masks_is_named(what: str) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    spoil, message = CANNOT[what]
    spoil(network)
    for wrap in (MaskAllocator, lambda net: powerpropagate(net, 2.0)):
        with pytest.raises(ConfigurationError, match=message) as raised:
            wrap(network)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("tensor", ["weight_hh_l0", "weight_ih_l0"])
def test_a_pruned_recurrent_weight_is_named(tensor: str) -> None:
    network = nn.Sequential(nn.LSTM(3, 4))
    prune.random_unstructured(network[0], tensor, 0.5)
    with pytest.raises(ConfigurationError, match=f"weight 0.{tensor} is computed from other tensors"):
        MaskAllocator(network)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_pruning_a_masked_layer_is_refused(alpha: float) -> None:
    network = powerpropagate(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), alpha)
    before = network.state_dict()
    with pytest.raises(ConfigurationError, match=r"weight of this Linear is parametrised by masks .* pruning cannot"):
        prune.l1_unstructured(network[0], "weight", 0.5)
    assert network.state_dict().keys() == before.keys()
    prune.l1_unstructured(network[0], "bias", 0.5)  # has no mask of ours
    assert int((network[0].bias == 0).sum()) == 2


def test_a_parametrised_matrix_without_a_mask_is_counted() -> None:
    network = Reader()
    parametrizations.weight_norm(network.embedding)
    assert MaskAllocator(network).uncovered == {"embedding.weight.original0": 50, "embedding.weight.original1": 200}


def test_attention_draws_by_fan_in_and_fan_out() -> None:
    """Xavier's bound, as nn.MultiheadAttention has it, unlike Linear's."""
    network = nn.MultiheadAttention(8, 2)
    weights = maskable_weights(network)
    drawn = weights["in_proj_weight"].initializer(torch.Size((24, 8)), generator(0, "test"))
    assert drawn.abs().max() <= math.sqrt(6 / (24 + 8))
    assert drawn.abs().max() > 8**-0.5
