"""The exported network computes the same function, and has the units that matter and no others."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.exporting.export import compact
from cl_powerprop.exporting.layers import Select
from cl_powerprop.exporting.network import ExportedNetwork
from cl_powerprop.limits import NORMS

from ..test_models import OPTIONS
from .networks import images, masked_network, outputs

NORMED = [(name, {"norm": norm}) for name, options in OPTIONS.items() if "norm" in options for norm in NORMS]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in OPTIONS),
    *NORMED,
    ("lenet5", {"bias": "none"}),
    ("lenet5", {"heads": "shared"}),
    ("mlp", {"independent": True}),
    ("convnet", {"bias": "none"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_it_computes_what_the_masked_network_does(name: str, options: dict[str, Any]) -> None:
    batch = images()
    for density, task in itertools.product((0.02, 0.3), (0, 1)):
        network = masked_network(name, density, **options)
        expected = outputs(network, batch, task)
        dense, small = compact(network, batch[:1], task)
        for exported in (dense, small):
            with torch.no_grad():
                torch.testing.assert_close(exported(batch), expected, rtol=1e-4, atol=1e-5)
        assert size(small) <= size(dense)


def size(network: ExportedNetwork) -> int:
    return sum(value.numel() for value in network.parameters())


def widths(network: ExportedNetwork) -> list[int]:
    """How many inputs each fully connected layer has, and how many outputs the last."""
    layers = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    return [*(layer.in_features for layer in layers), layers[-1].out_features]


def sparse_mlp(sizes: list[int], density: float, seed: int, bias: bool) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        layer = nn.Linear(before, after, bias=bias)
        layer.weight.data *= torch.rand(layer.weight.shape, generator=generator) < density
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.1, 0.3, 0.6]), st.booleans())
def test_a_unit_stays_if_a_path_from_input_to_output_goes_through_it(seed: int, density: float, bias: bool) -> None:
    sizes = [12, 9, 8, 7, 4]
    network = sparse_mlp(sizes, density, seed, bias)
    batch = torch.randn(5, 1, 3, 4)
    _, small = compact(network, batch)
    with torch.no_grad():
        torch.testing.assert_close(small(batch), network(batch))
    used = [layer.weight.detach() != 0 for layer in network if isinstance(layer, nn.Linear)]
    assert widths(small) == reference_widths(used)


def reference_widths(used: list[Tensor]) -> list[int]:
    """The units of each layer that a path of weights goes through, from any input to any output; at least one."""
    forward = [torch.ones(used[0].shape[1])]
    for weights in used:
        forward.append((weights.float() @ forward[-1] > 0).float())
    backward = [torch.ones(len(used[-1]))]
    for weights in reversed(used):
        backward.insert(0, (weights.float().T @ backward[0] > 0).float())
    through = [max(1, int((ahead * behind).sum())) for ahead, behind in zip(forward, backward, strict=True)]
    if through[0] > 0.75 * used[0].shape[1]:
        through[0] = used[0].shape[1]  # so few pixels are not worth a selection
    return [*through[:-1], len(used[-1])]  # every class stays, whether an input matters to it or not


@torch.no_grad()
def test_a_constant_moves_into_the_next_bias() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    hidden, last = network[1], network[3]
    hidden.weight[1] = 0.0
    hidden.bias[1] = 0.5  # type: ignore[index]
    hidden.weight[2] = 0.0
    hidden.bias[2] = -0.5  # type: ignore[index]
    _, small = compact(network, torch.zeros(1, 1, 2, 2))
    assert widths(small) == [4, 1, 2]
    torch.testing.assert_close(small.layers[-1].bias, last.bias + 0.5 * last.weight[:, 1])


@torch.no_grad()
@pytest.mark.parametrize(("padding", "constant", "channels"), [(0, 0.5, 2), (1, 0.5, 3), (1, -0.5, 2)])
def test_a_constant_channel_stays_where_padding_makes_its_effect_differ(
    padding: int, constant: float, channels: int
) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=padding), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network[0].weight[1] = 0.0
    network[0].bias[1] = constant
    batch = torch.randn(4, 1, 8, 8)
    _, small = compact(network, batch)
    torch.testing.assert_close(small(batch), network(batch))
    assert small.layers[0].out_channels == channels


@torch.no_grad()
def test_channels_that_an_addition_pairs_go_together() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.back = (nn.Conv2d(1, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 4, 1))
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            stem = self.stem(x)
            return self.head((stem + self.back(self.inner(stem).relu())).relu().mean((2, 3)))

    class Pooled(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x: Tensor) -> Tensor:
            stem = self.stem(x)
            return self.head(torch.flatten(self.pool((stem + self.back(self.inner(stem).relu())).relu()), 1))

    with pytest.raises(ConfigurationError, match="export does not know mean"):
        compact(Residual(), torch.zeros(1, 1, 2, 2))
    network = Pooled()
    network.head.weight[:, [0, 1]] = 0.0  # nobody uses the sums 0 and 1, and the inner layer still takes 0 of the stem
    network.inner.weight[:, 1] = 0.0
    network.back.weight[:, 2] = 0.0
    batch = torch.randn(3, 1, 4, 4)
    _, small = compact(network, batch)
    torch.testing.assert_close(small(batch), network(batch))
    shapes = [tuple(layer.weight.shape[:2]) for layer in small.layers if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert shapes == [(3, 1), (4, 3), (3, 4), (2, 3)]


@torch.no_grad()
def test_batch_norms_vanish_into_convolutions_but_not_across_an_addition() -> None:
    _, small = compact(masked_network("resnet18", 0.3), images(1), 0)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in small.layers)
    branching = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 36, 2))
    branching[2].running_mean.copy_(torch.tensor([0.5, -0.5]))
    batch = torch.randn(3, 1, 8, 8)
    _, small = compact(branching.eval(), batch)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in small.layers)  # a ReLU lies between
    torch.testing.assert_close(small(batch), branching(batch))


def test_pixels_that_nothing_uses_are_left_out() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    network[1].weight.data[:, [0, 4]] = 0.0
    _, small = compact(network, torch.zeros(1, 1, 2, 3))
    selection = small.layers[1]
    assert isinstance(selection, Select)
    assert selection.index.tolist() == [1, 2, 3, 5]


def test_the_network_itself_is_not_changed() -> None:
    network = masked_network("convnet", 0.1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    compact(network, images(1), 1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Bilinear(4, 4, 2)), "Bilinear"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Softmax(1)), r"Softmax.*layer 2"),
        (nn.Sequential(nn.Linear(2, 2), nn.Flatten()), "Linear layers on feature maps, as 0 is"),
        (nn.Sequential(nn.Flatten(2), nn.Flatten()), "Flatten only of all but the first"),
    ],
)
def test_what_cannot_be_exported_is_named(network: nn.Module, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        compact(network, torch.zeros(1, 1, 2, 2))


def test_a_network_whose_course_depends_on_its_input_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ConfigurationError, match="cannot follow"):
        compact(Branching(), torch.zeros(1, 1, 2, 2))
