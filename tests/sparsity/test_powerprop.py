"""Powerpropagation against the formula of the paper and against plain torch."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity import powerpropagate
from cl_powerprop.sparsity.bits import to_bits
from cl_powerprop.sparsity.powerprop import SparseWeightFunction, magnitude_power, to_phi, to_theta

from .networks import KINDS, bits, make_batch, make_network, power, root

ALPHAS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 8.0)

LAYERS = {
    "Linear": (lambda: nn.Linear(4, 5), (4,)),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 2), (2, 4)),
    "Conv2d": (lambda: nn.Conv2d(2, 4, 2, groups=2), (2, 4, 4)),
    "Conv3d": (lambda: nn.Conv3d(1, 2, 2), (1, 3, 3, 3)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 2), (2, 4)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 3, 2), (2, 3, 3)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 1, 2), (2, 2, 2, 2)),
}


def weight_in_use(
    phi: Tensor, alpha: float, mask: Tensor | None = None, gate: Tensor | None = None, theta_gradient: bool = False
) -> Tensor:
    visible, open_ = (None if part is None else to_bits(part, phi.dtype) for part in (mask, gate))
    return SparseWeightFunction.apply(phi, alpha, visible, open_, theta_gradient)


def phi_of(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


@pytest.mark.parametrize("alpha", ALPHAS)
def test_theta_is_the_formula(alpha: float) -> None:
    phi = torch.cat([torch.randn(200, dtype=torch.float64), torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-30])])
    torch.testing.assert_close(to_theta(phi, alpha), power(phi, alpha), rtol=1e-13, atol=0.0)
    torch.testing.assert_close(weight_in_use(phi, alpha), power(phi, alpha), rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_phi_is_the_inverse_formula(alpha: float) -> None:
    theta = torch.cat([torch.randn(200, dtype=torch.float64), torch.tensor([0.0, 1.0, -1.0, 1e-30])])
    phi = to_phi(theta, alpha)
    torch.testing.assert_close(phi, root(theta, alpha), rtol=1e-13, atol=0.0)
    torch.testing.assert_close(power(phi, alpha), theta, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("alpha", [2.0, 3.0, 4.0, 5.0, 8.0])
def test_multiplying_equals_pow(alpha: float) -> None:
    phi = torch.randn(500, dtype=torch.float64)
    torch.testing.assert_close(magnitude_power(phi, alpha), phi.abs().pow(alpha - 1.0), rtol=1e-13, atol=0.0)
    near = magnitude_power(phi, math.nextafter(alpha, 0.0))  # not whole, so the general path
    torch.testing.assert_close(magnitude_power(phi, alpha), near, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("masked", [False, True])
def test_gradient_by_finite_differences(alpha: float, masked: bool) -> None:
    phi = torch.randn(4, 5, dtype=torch.float64)
    phi = (phi + 0.2 * phi.sign()).requires_grad_()
    mask = torch.rand(4, 5) < 0.5 if masked else None
    assert torch.autograd.gradcheck(lambda value: weight_in_use(value, alpha, mask), (phi,))


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("theta_gradient", [False, True])
def test_gradient_through_mask_and_gate(alpha: float, masked: bool, theta_gradient: bool) -> None:
    phi = torch.randn(6, 7, dtype=torch.float64).requires_grad_()
    upstream = torch.randn(6, 7, dtype=torch.float64)
    mask = torch.rand(6, 7) < 0.6 if masked else None
    gate = torch.rand(6, 7) < 0.5 if mask is None else mask & (torch.rand(6, 7) < 0.5)
    weight_in_use(phi, alpha, mask, gate, theta_gradient).backward(upstream)
    expected = upstream * gate.double()
    if not theta_gradient:
        expected = expected * alpha * phi.detach().abs() ** (alpha - 1.0)
    torch.testing.assert_close(phi.grad, expected, rtol=1e-12, atol=0.0)


def test_hidden_infinities_do_not_leak() -> None:
    phi = torch.tensor([math.inf, -math.inf, math.nan, 2.0], requires_grad=True)
    mask = torch.tensor([False, False, False, True])
    for alpha in (1.0, 2.0, 2.5):
        theta = weight_in_use(phi, alpha, mask)
        assert theta.tolist() == pytest.approx([0.0, 0.0, 0.0, 2.0**alpha])
        (gradient,) = torch.autograd.grad(theta.sum(), phi)
        assert gradient.tolist() == pytest.approx([0.0, 0.0, 0.0, alpha * 2.0 ** (alpha - 1.0)])


@settings(max_examples=60, deadline=None)
@given(alpha=st.floats(1.0, 8.0), upstream=st.floats(-1e3, 1e3, width=32))
def test_no_nan_at_zero(alpha: float, upstream: float) -> None:
    phi = torch.tensor([0.0, -0.0, 1e-45, -1e-38, 0.5], requires_grad=True)
    theta = weight_in_use(phi, alpha)
    theta.backward(torch.full_like(theta, upstream))
    assert theta.isfinite().all()
    assert theta[:2].tolist() == [0.0, 0.0]
    assert phi.grad is not None
    assert phi.grad.isfinite().all()
    at_zero = upstream if alpha == 1.0 else 0.0
    assert phi.grad[:2].tolist() == [at_zero, at_zero]
    assert to_phi(torch.zeros(3), alpha).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5, 4.0])
def test_every_layer_keeps_its_function(name: str, alpha: float) -> None:
    build, shape = LAYERS[name]
    layer = build()
    x, before, bias = torch.randn(3, *shape), layer.weight.detach().clone(), layer.bias.detach().clone()
    expected = layer(x).detach()
    assert powerpropagate(layer, alpha) is layer
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(phi_of(layer).double(), root(before, alpha), rtol=1e-5, atol=1e-7)
    assert bits(layer.bias) == bits(bias)
    layer(x).square().sum().backward()
    reference = copy.deepcopy(before).requires_grad_()
    plain = build()
    (dtheta,) = torch.autograd.grad(
        torch.func.functional_call(plain, {"weight": reference, "bias": bias}, (x,)).square().sum(), reference
    )
    expected_gradient = dtheta.double() * alpha * root(before, alpha).abs() ** (alpha - 1.0)
    torch.testing.assert_close(phi_of(layer).grad.double(), expected_gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("init_scale", [1.0, 0.5])
def test_network_at_step_zero(kind: str, init_scale: float) -> None:
    plain, network = make_network(kind), make_network(kind)
    powerpropagate(network, 2.5, init_scale=init_scale)
    with torch.no_grad():
        for value in plain.parameters():
            if value.ndim > 1:
                value.mul_(init_scale)
    x, _ = make_batch(kind, 1)
    torch.testing.assert_close(network(x), plain(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_alpha_one_is_plain_torch_bit_for_bit(kind: str, optimizer: str) -> None:
    def train(network: nn.Module) -> tuple[list[int], list[float]]:
        if optimizer == "sgd":
            chosen: torch.optim.Optimizer = torch.optim.SGD(
                network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3
            )
        else:
            chosen = torch.optim.AdamW(network.parameters(), lr=0.01)
        losses = []
        for step in range(100):
            x, y = make_batch(kind, step)
            chosen.zero_grad()
            loss = nn.functional.cross_entropy(network(x), y)
            loss.backward()
            chosen.step()
            losses.append(loss.item())
        return bits(torch.cat([parameter.flatten() for parameter in by_name(network).values()])), losses

    def by_name(network: nn.Module) -> dict[str, Tensor]:
        named = {
            name.replace("parametrizations.", "").replace(".original", ""): parameter
            for name, parameter in network.named_parameters()
        }
        return dict(sorted(named.items()))

    plain, network = make_network(kind), powerpropagate(make_network(kind), 1.0)
    start = bits(torch.cat([parameter.flatten() for parameter in by_name(plain).values()]))
    expected = train(plain)
    assert expected[0] != start
    assert train(network) == expected


@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5])
def test_assigning_a_weight_means_the_weight_in_use(alpha: float) -> None:
    layer = powerpropagate(nn.Linear(4, 3), alpha)
    parameter, value = phi_of(layer), torch.randn(3, 4)
    layer.weight = value
    assert phi_of(layer) is parameter
    torch.testing.assert_close(layer.weight, value, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(parameter.double(), root(value, alpha), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_optimizer_built_before_stays_valid(alpha: float) -> None:
    results = []
    for build_first in (True, False):
        network = make_network("conv2d")
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9) if build_first else None
        powerpropagate(network, alpha)
        optimizer = optimizer or torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        before = bits(network[0].weight)
        for step in range(5):
            x, y = make_batch("conv2d", step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        assert bits(network[0].weight) != before
        results.append(bits(network[0].weight))
    assert results[0] == results[1]


def test_tied_weights_are_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    with pytest.raises(ConfigurationError, match="share one weight"):
        powerpropagate(network, 2.0)
    assert type(network[0]) is nn.Linear


def test_one_layer_used_twice_is_fine() -> None:
    layer = nn.Linear(4, 4)
    network = powerpropagate(nn.Sequential(layer, nn.ReLU(), layer), 2.0)
    network(torch.randn(2, 4)).sum().backward()
    assert phi_of(layer).grad is not None


@pytest.mark.parametrize("alpha", [0.99, 0.0, -2.0, math.nan, math.inf, -math.inf])
def test_impossible_alpha(alpha: float) -> None:
    network = nn.Linear(3, 3)
    before = bits(network.weight)
    with pytest.raises(ConfigurationError, match="alpha"):
        powerpropagate(network, alpha)
    assert type(network) is nn.Linear
    assert bits(network.weight) == before


@pytest.mark.parametrize("init_scale", [0.0, -1.0, math.nan, math.inf])
def test_impossible_init_scale(init_scale: float) -> None:
    with pytest.raises(ConfigurationError, match="init_scale"):
        powerpropagate(nn.Linear(3, 3), 2.0, init_scale=init_scale)


def test_reparameterising_twice_is_refused() -> None:
    network = powerpropagate(nn.Linear(3, 3), 2.0)
    before = bits(network.weight)
    with pytest.raises(ConfigurationError, match="already"):
        powerpropagate(network, 2.0, init_scale=0.5)
    assert bits(network.weight) == before


@pytest.mark.parametrize("network", [nn.ReLU(), nn.Sequential(nn.BatchNorm1d(3), nn.Embedding(3, 3))])
def test_model_without_layers_is_refused(network: nn.Module) -> None:
    with pytest.raises(ConfigurationError, match="no Linear or Conv"):
        powerpropagate(network, 2.0)


def test_excluded_modules_are_left_alone() -> None:
    model = nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.ModuleList([nn.Linear(3, 2)])})
    powerpropagate(model, 2.0, exclude=(nn.ModuleList,))
    assert hasattr(model["body"], "parametrizations")
    assert not hasattr(model["head"][0], "parametrizations")


def test_a_second_derivative_is_refused_not_wrong() -> None:
    phi = torch.randn(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiable once only"):
        torch.autograd.grad(weight_in_use(phi, 2.0).sum(), phi, create_graph=True)
