"""The step in theta-space against references written from the optimizers' formulas."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity import ThetaSpaceStep, is_adaptive, powerpropagate

INPUTS = torch.randn(40, 16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
LABELS = torch.randint(3, (40, 16), generator=torch.Generator().manual_seed(6))


def make_layer(alpha: float) -> nn.Module:
    torch.manual_seed(3)
    return powerpropagate(nn.Linear(5, 3).double(), alpha)


def run(layer: nn.Module, optimizer: torch.optim.Optimizer, steps: range, after: Callable[[], object] = int) -> None:
    for step in steps:
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(INPUTS[step]), LABELS[step]).backward()
        optimizer.step()
        after()


def parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.parametrizations.weight.original.detach().clone(), layer.bias.detach().clone()


class Moments:
    """The direction that Adam or RMSprop moves in, from the textbook formulas."""

    def __init__(self, kind: str, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self.kind, self.beta1, self.beta2, self.eps = kind, beta1, beta2, eps
        self.first = self.second = torch.zeros(())
        self.count = 0

    def direction(self, gradient: Tensor) -> Tensor:
        self.count += 1
        if self.kind == "rmsprop":
            self.second = 0.99 * self.second + 0.01 * gradient**2
            return gradient / (self.second.sqrt() + self.eps)
        self.first = self.beta1 * self.first + (1 - self.beta1) * gradient
        self.second = self.beta2 * self.second + (1 - self.beta2) * gradient**2
        first = self.first / (1 - self.beta1**self.count)
        second = self.second / (1 - self.beta2**self.count)
        return first / (second.sqrt() + self.eps)


def reference(
    kind: str, alpha: float, rates: list[float], decay: float, phi: Tensor, bias: Tensor, power: float | None = None
) -> tuple[Tensor, Tensor]:
    """Moments from dL/dtheta; the step scaled by alpha |phi|^(alpha-1); decay straight on the parameters."""
    exponent = alpha - 1.0 if power is None else power
    of_weight, of_bias = Moments(kind), Moments(kind)
    for step, lr in enumerate(rates):
        theta = (phi.sign() * phi.abs() ** alpha).requires_grad_()
        free_bias = bias.clone().requires_grad_()
        loss = nn.functional.cross_entropy(INPUTS[step] @ theta.T + free_bias, LABELS[step])
        dtheta, dbias = torch.autograd.grad(loss, (theta, free_bias))
        scale = alpha * phi.abs() ** exponent
        phi = phi - lr * decay * phi - lr * of_weight.direction(dtheta) * scale
        bias = bias - lr * decay * bias - lr * of_bias.direction(dbias)
    return phi, bias


MAKERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}


@pytest.mark.parametrize("alpha", [2.0, 2.5, 3.0])
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("kind", MAKERS)
def test_adaptive_step_is_the_formula(kind: str, decay: float, alpha: float) -> None:
    layer = make_layer(alpha)
    start = parameters(layer)
    optimizer = MAKERS[kind](layer.parameters(), lr=0.02, weight_decay=decay)
    ThetaSpaceStep(optimizer, layer)
    run(layer, optimizer, range(25))
    expected = reference(kind, alpha, [0.02] * 25, decay, *start)
    assert (start[0] - expected[0]).abs().max() > 0.05
    torch.testing.assert_close(parameters(layer), expected, rtol=1e-9, atol=1e-11)
    assert optimizer.param_groups[0]["weight_decay"] == decay


def test_adam_in_phi_space_takes_a_different_step() -> None:
    """Control: the test above would show nothing if both spaces agreed for Adam."""
    layer = make_layer(3.0)
    start = parameters(layer)
    run(layer, torch.optim.Adam(layer.parameters(), lr=0.02), range(25))
    expected = reference("adam", 3.0, [0.02] * 25, 0.0, *start)
    assert (parameters(layer)[0] - expected[0]).abs().max() > 0.01


@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5, 4.0])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_agrees_in_both_spaces(alpha: float, decay: float) -> None:
    in_phi, in_theta = make_layer(alpha), make_layer(alpha)
    start = parameters(in_phi)
    plain = torch.optim.SGD(in_phi.parameters(), lr=0.3, weight_decay=decay)
    scaled = torch.optim.SGD(in_theta.parameters(), lr=0.3, weight_decay=decay)
    ThetaSpaceStep(scaled, in_theta)
    run(in_phi, plain, range(30))
    run(in_theta, scaled, range(30))
    assert (start[0] - parameters(in_phi)[0]).abs().max() > 0.05
    torch.testing.assert_close(parameters(in_theta), parameters(in_phi), rtol=1e-9, atol=1e-11)


def test_scheduler() -> None:
    layer = make_layer(2.0)
    start = parameters(layer)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.04, weight_decay=0.05)
    ThetaSpaceStep(optimizer, layer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)
    run(layer, optimizer, range(20), scheduler.step)
    rates = [0.04 * 0.5 ** (step // 5) for step in range(20)]
    torch.testing.assert_close(parameters(layer), reference("adamw", 2.0, rates, 0.05, *start), rtol=1e-9, atol=1e-11)


def test_state_dict_round_trip() -> None:
    layer = make_layer(2.0)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.02, weight_decay=0.05)
    ThetaSpaceStep(optimizer, layer)
    run(layer, optimizer, range(10))
    weights, state = {name: value.clone() for name, value in layer.state_dict().items()}, optimizer.state_dict()
    assert state["param_groups"][0]["weight_decay"] == 0.05
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    other = make_layer(2.0)
    other.load_state_dict(weights)
    resumed = torch.optim.AdamW(other.parameters(), lr=0.5)
    ThetaSpaceStep(resumed, other)
    resumed.load_state_dict(copy.deepcopy(state))
    run(layer, optimizer, range(10, 20))
    run(other, resumed, range(10, 20))
    assert not torch.equal(parameters(layer)[0], weights["parametrizations.weight.original"])
    for one, two in zip(parameters(layer), parameters(other), strict=True):
        assert torch.equal(one, two)


def test_remove_restores_the_plain_step() -> None:
    layer, twin = make_layer(3.0), make_layer(3.0)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02, weight_decay=0.05)
    plain = torch.optim.Adam(twin.parameters(), lr=0.02, weight_decay=0.05)
    ThetaSpaceStep(optimizer, layer).remove()
    run(layer, optimizer, range(10))
    run(twin, plain, range(10))
    for one, two in zip(parameters(layer), parameters(twin), strict=True):
        assert torch.equal(one, two)


def test_a_step_from_zero_stays_at_zero() -> None:
    layer = make_layer(2.5)
    with torch.no_grad():
        layer.parametrizations.weight.original[0] = 0.0
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.02)
    ThetaSpaceStep(optimizer, layer)
    run(layer, optimizer, range(5))
    phi, _ = parameters(layer)
    assert phi[0].tolist() == [0.0] * 5
    assert phi[1:].isfinite().all()


def sgd_with_power(alpha: float, power: float, start: Tensor, lr: float, decay: float, steps: int) -> Tensor:
    """Return phi after steps of ReWA as in the paper: lr * y^M / y^(K-1) times dL/dy, and decay at the rate lr."""
    y, bias = start.clone(), torch.zeros(3, dtype=torch.float64)
    for step in range(steps):
        free = y.clone().requires_grad_()
        free_bias = bias.clone().requires_grad_()
        loss = nn.functional.cross_entropy(
            INPUTS[step] @ (free.sign() * free.abs() ** alpha).T + free_bias, LABELS[step]
        )
        dy, dbias = torch.autograd.grad(loss, (free, free_bias))
        y = y - lr * (y.abs() ** power / y.abs() ** (alpha - 1.0) * dy + decay * y)
        bias = bias - lr * dbias - lr * decay * bias
    return y


@pytest.mark.parametrize(("alpha", "power"), [(2.0, 0.0), (3.0, 0.0), (3.0, 1.0), (3.0, 0.5), (9.0, 2.0)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_step_with_a_power_is_that_of_rewa(alpha: float, power: float, decay: float) -> None:
    layer = make_layer(alpha)
    with torch.no_grad():
        layer.bias.zero_()
    start, _ = parameters(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01, weight_decay=decay)
    ThetaSpaceStep(optimizer, layer, power)
    run(layer, optimizer, range(20))
    phi, _ = parameters(layer)
    assert (phi - start).abs().max() > 0.02
    torch.testing.assert_close(phi, sgd_with_power(alpha, power, start, 0.01, decay, 20), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", MAKERS)
def test_adaptive_step_with_a_power(kind: str) -> None:
    layer = make_layer(3.0)
    start = parameters(layer)
    optimizer = MAKERS[kind](layer.parameters(), lr=0.02, weight_decay=0.05)
    ThetaSpaceStep(optimizer, layer, 0.0)
    run(layer, optimizer, range(25))
    expected = reference(kind, 3.0, [0.02] * 25, 0.05, *start, power=0.0)
    torch.testing.assert_close(parameters(layer), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("alpha", [2.0, 2.5, 4.0])
def test_power_of_alpha_minus_1_is_powerpropagation_bit_for_bit(alpha: float) -> None:
    ended = []
    for power in (None, alpha - 1.0):
        layer = make_layer(alpha)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.02)
        ThetaSpaceStep(optimizer, layer, power)
        run(layer, optimizer, range(10))
        ended.append(parameters(layer)[0])
    assert torch.equal(*ended)


def descend(alpha: float, power: float | None, theta: float, target: float, decay: float = 0.0) -> float:
    """Return where descent on ``(theta - target)^2 / 2`` ends."""
    layer = powerpropagate(nn.Linear(1, 1, bias=False).double(), alpha)
    layer.weight = torch.full((1, 1), theta, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05, weight_decay=decay)
    ThetaSpaceStep(optimizer, layer, power)
    for _ in range(400):
        optimizer.zero_grad()
        ((layer.weight - target) ** 2 / 2).sum().backward()
        optimizer.step()
    return layer.weight.item()


@pytest.mark.parametrize("alpha", [2.0, 3.0])
@pytest.mark.parametrize("start", [0.0, -0.3])
def test_a_scale_that_does_not_vanish_leaves_0_and_changes_the_sign(alpha: float, start: float) -> None:
    assert descend(alpha, 0.0, start, 0.5) == pytest.approx(0.5, abs=1e-6)
    for power in (None, 1.0):  # these vanish at 0
        stuck = descend(alpha, power, start, 0.5)
        assert -0.02 < stuck <= 0.0


@pytest.mark.parametrize(("alpha", "power"), [(2.0, 0.0), (3.0, 0.0), (3.0, 1.0), (3.0, 2.0), (2.0, None)])
def test_what_decay_penalises(alpha: float, power: float | None) -> None:
    """Decay is an L_p penalty, p = 1 + (1 - power) / alpha: L1 for power 1, L_(2 / alpha) for Powerpropagation."""
    decay, target = 0.2, 0.9
    exponent = alpha - 1.0 if power is None else power
    p = 1 + (1 - exponent) / alpha
    theta = descend(alpha, power, 0.9, target, decay)
    assert 0.3 < theta < 0.89
    assert theta - target == pytest.approx(-decay / alpha * theta ** (p - 1), abs=1e-6)


@pytest.mark.parametrize("power", [-0.5, 1.5, math.nan])
def test_impossible_power(power: float) -> None:
    layer = make_layer(2.0)
    with pytest.raises(ConfigurationError, match=r"from 0 to model.alpha - 1 = 1"):
        ThetaSpaceStep(torch.optim.SGD(layer.parameters(), lr=0.1), layer, power)


def test_is_adaptive() -> None:
    layer = nn.Linear(2, 2)
    assert not is_adaptive(torch.optim.SGD(layer.parameters(), lr=0.1))
    for make in (*MAKERS.values(), torch.optim.Adagrad):
        assert is_adaptive(make(layer.parameters(), lr=0.1))
