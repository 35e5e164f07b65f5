"""Weights that are a product of two trained factors, against the mathematics written out."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity import MaskAllocator, RigL, ThetaSpaceStep, TopKAST, maskable_weights, powerpropagate
from cl_powerprop.sparsity.product import ProductWeight

from .networks import KINDS, make_batch, make_network

INPUTS = torch.randn(400, 16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
LABELS = torch.randint(3, (400, 16), generator=torch.Generator().manual_seed(6))


def product(seed: int = 3) -> nn.Linear:
    torch.manual_seed(seed)
    return powerpropagate(nn.Linear(5, 3).double(), 2.0, reparam="product")


def factors(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    return layer.parametrizations.weight.original, layer.parametrizations.weight[0].factor


def run(layer: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(INPUTS[step]), LABELS[step]).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_keeps_its_function(kind: str) -> None:
    plain, network = make_network(kind), powerpropagate(make_network(kind), 2.0, reparam="product")
    x, _ = make_batch(kind, 1)
    torch.testing.assert_close(network(x), plain(x), rtol=1e-4, atol=1e-5)
    assert all(len(weight.trained) == 2 for weight in maskable_weights(network).values())


def test_a_weight_starts_with_a_balance_of_one() -> None:
    values = torch.tensor([[0.0, 1e-6, -1e-3, 0.5, -30.0]])
    layer = powerpropagate(nn.Linear(5, 1), 2.0, reparam="product")
    layer.weight = values
    phi, factor = factors(layer)
    torch.testing.assert_close(layer.weight, values, rtol=1e-6, atol=0.0)
    balance = factor.double() ** 2 - phi.double() ** 2
    torch.testing.assert_close(balance, torch.ones_like(balance), rtol=0.0, atol=1e-3)  # of 30 in float32
    assert (factor > 0).all()


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_steps_are_those_of_both_factors(decay: float) -> None:
    layer = product()
    w, m = (value.detach().clone() for value in factors(layer))
    bias = layer.bias.detach().clone()
    optimizer = torch.optim.SGD(
        [{"params": factors(layer), "weight_decay": decay}, {"params": [layer.bias]}], lr=0.1, momentum=0.9
    )
    run(layer, optimizer, 30)
    speed_w, speed_m, speed_b = torch.zeros_like(w), torch.zeros_like(m), torch.zeros_like(bias)
    for step in range(30):
        probabilities = torch.softmax(INPUTS[step] @ (w * m).T + bias, 1)
        error = (probabilities - nn.functional.one_hot(LABELS[step], 3)) / 16
        gradient = error.T @ INPUTS[step]
        speed_w = 0.9 * speed_w + gradient * m + decay * w
        speed_m = 0.9 * speed_m + gradient * w + decay * m
        speed_b = 0.9 * speed_b + error.sum(0)
        w, m, bias = w - 0.1 * speed_w, m - 0.1 * speed_m, bias - 0.1 * speed_b
    torch.testing.assert_close((*factors(layer), layer.bias), (w, m, bias), rtol=1e-10, atol=1e-12)


def test_balanced_factors_are_powerpropagation_with_alpha_2() -> None:
    """With |phi| = |factor|, each step is that of Powerpropagation at half the rate and twice the decay."""
    layer, twin = product(), powerpropagate(nn.Linear(5, 3).double(), 2.0)
    theta = layer.weight.detach().clone()
    with torch.no_grad():
        factors(layer)[0].copy_(theta.sign() * theta.abs().sqrt())
        factors(layer)[1].copy_(theta.abs().sqrt())
        twin.weight, twin.bias = theta, nn.Parameter(layer.bias.detach().clone())
    run(layer, torch.optim.SGD([{"params": factors(layer), "weight_decay": 0.01}], lr=0.2), 40)
    run(twin, torch.optim.SGD([twin.parametrizations.weight.original], lr=0.1, weight_decay=0.02), 40)
    assert (layer.weight - theta).abs().max() > 0.05
    torch.testing.assert_close(layer.weight, twin.weight, rtol=1e-9, atol=1e-12)


def test_gradient_flow_keeps_the_balance_and_decay_shrinks_it() -> None:
    for decay in (0.0, 0.2):
        layer, rate = product(), 1e-3
        run(layer, torch.optim.SGD(factors(layer), lr=rate, weight_decay=decay), 400)
        phi, factor = factors(layer)
        expected = torch.full_like(phi, (1 - rate * decay) ** 800)
        torch.testing.assert_close(factor.detach() ** 2 - phi.detach() ** 2, expected, rtol=0.0, atol=1e-4)


def minimum(curvature: float, target: float, decay: float, start: float) -> float:
    """Return theta after long descent on ``curvature * (theta - target)^2 / 2`` with decay on both factors."""
    layer = powerpropagate(nn.Linear(1, 1, bias=False).double(), 2.0, reparam="product")
    layer.weight = torch.full((1, 1), start, dtype=torch.float64)
    optimizer = torch.optim.SGD(factors(layer), lr=0.2, weight_decay=decay)
    for _ in range(600):
        optimizer.zero_grad()
        (curvature * (layer.weight - target) ** 2 / 2).sum().backward()
        optimizer.step()
    return layer.weight.item()


@pytest.mark.parametrize("target", [0.9, -0.9, 0.1, -0.1])
def test_decay_on_both_factors_is_an_l1_penalty(target: float) -> None:
    """The minimum is the soft threshold of the lasso, whatever the sign that the weight starts with."""
    decay, curvature = 0.3, 1.0
    shrunk = max(abs(target) - decay / curvature, 0.0)
    expected = shrunk if target > 0 else -shrunk
    for start in (0.5, -0.5):
        assert minimum(curvature, target, decay, start) == pytest.approx(expected, abs=1e-6)


def test_powerpropagation_cannot_change_a_sign_and_a_product_can() -> None:
    ended = {}
    for reparam in ("powerprop", "product"):
        layer = powerpropagate(nn.Linear(1, 1, bias=False).double(), 2.0, reparam=reparam)
        layer.weight = torch.full((1, 1), -0.3, dtype=torch.float64)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.2)
        for _ in range(500):
            optimizer.zero_grad()
            ((layer.weight - 0.5) ** 2 / 2).sum().backward()
            optimizer.step()
        ended[reparam] = layer.weight.item()
    assert -0.02 < ended["powerprop"] < 0
    assert ended["product"] == pytest.approx(0.5, abs=1e-6)


def test_a_mask_hides_weights_and_gates_both_factors() -> None:
    layer = product()
    masked = layer.parametrizations.weight[0]
    assert isinstance(masked, ProductWeight)
    mask = torch.rand(3, 5) < 0.5
    theta = layer.weight.detach().clone()
    masked.set_training_view(mask)
    assert torch.equal(layer.weight, torch.where(mask, theta, 0.0))
    assert torch.equal(masked.theta(factors(layer)[0]), theta)
    upstream = torch.randn(3, 5, dtype=torch.float64)
    layer.weight.backward(upstream)
    phi, factor = factors(layer)
    assert torch.equal(phi.grad, torch.where(mask, upstream, 0.0) * factor)
    assert torch.equal(factor.grad, torch.where(mask, upstream, 0.0) * phi)


def test_state_copies_and_dtypes() -> None:
    layer, other = product(3), product(4)
    state: dict[str, Tensor] = layer.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(copy.deepcopy(layer).weight, layer.weight)
    assert copy.deepcopy(layer).float().weight.dtype == torch.float32
    with pytest.raises(RuntimeError, match="factor"):
        powerpropagate(nn.Linear(5, 3).double(), 2.0).load_state_dict(state)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_sparse_training_hides_drops_and_grows_both_factors(kind: str) -> None:
    torch.manual_seed(3)
    network = powerpropagate(
        nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 3)).double(), 2.0, reparam="product"
    )
    parameters = network.parameters()
    if kind == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=0.01)
    controller = RigL(network, optimizer, sparsity=0.75, stop=30, every=5)
    layers = controller.layers.values()
    grown = 0
    for step in range(40):
        before = [each.value != 0 for each in layers]
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(INPUTS[step]), LABELS[step]).backward()
        optimizer.step()
        controller.step()
        assert sum(int((each.value != 0).sum()) for each in layers) <= round(0.25 * (5 * 24 + 24 * 3))
        for each, used in zip(layers, before, strict=True):
            new = (each.value != 0) & ~used
            phi, factor = each.trained
            assert torch.equal(phi != 0, each.value != 0)
            balance = factor[new] ** 2 - phi[new] ** 2
            torch.testing.assert_close(balance, torch.ones_like(balance))
            moments = [value for tensor in each.trained for value in optimizer.state[tensor].values() if value.dim()]
            assert moments
            assert all(value[new].eq(0).all() for value in moments)
            grown += int(new.sum())
    controller.finalize()
    assert grown > 10
    assert controller.sparsity == pytest.approx(0.75, abs=1 / 192)


def test_what_needs_one_tensor_is_refused() -> None:
    layer = product()
    with pytest.raises(ConfigurationError, match="Top-KAST"):
        TopKAST(product(), torch.optim.SGD(layer.parameters(), lr=0.1), sparsity=0.5, stop=10)
    with pytest.raises(ConfigurationError, match="cannot freeze a product"):
        MaskAllocator(layer)
    with pytest.raises(ConfigurationError, match="space=phi"):
        ThetaSpaceStep(torch.optim.Adam(layer.parameters()), layer)
    with pytest.raises(ConfigurationError, match="two factors"):
        powerpropagate(nn.Linear(5, 3), 3.0, reparam="product")
    with pytest.raises(ConfigurationError, match="powerprop, product"):
        powerpropagate(nn.Linear(5, 3), 2.0, reparam="hadamard")
