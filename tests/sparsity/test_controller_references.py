"""Each controller step by step against its method, written again in a few lines over plain tensors."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.sparsity import Controller, RigL, TopKAST, powerpropagate

from .controllers import STEPS, erk_densities, make
from .networks import make_batch

Masks = list[Tensor]
SPARSITY, LR, MOMENTUM = 0.7, 0.1, 0.9
SHAPES = [(9, 6), (7, 9), (3, 7)]


class Plain:
    """A network of three matrices that is trained by SGD with momentum; masks and exponents by hand."""

    def __init__(self, thetas: list[Tensor], alpha: float) -> None:
        self.alpha = alpha
        self.phi = [theta.sign() * theta.abs() ** (1.0 / alpha) for theta in thetas]
        self.used: Masks = [torch.ones_like(theta, dtype=torch.bool) for theta in thetas]
        self.trained: Masks | None = None  # those that are used
        self.momentum = [torch.zeros_like(theta) for theta in thetas]
        self.dense_gradient: list[Tensor] = []
        self.penalty: Callable[[int], Tensor] = lambda layer: torch.zeros(())

    def theta(self, layer: int) -> Tensor:
        return self.phi[layer] * self.phi[layer].abs() ** (self.alpha - 1.0)

    def step(self, x: Tensor, y: Tensor) -> None:
        effective = [(self.theta(i) * self.used[i]).requires_grad_() for i in range(3)]
        hidden = x.double()
        for weight in effective[:2]:
            hidden = torch.relu(hidden @ weight.T)
        nn.functional.cross_entropy(hidden @ effective[2].T, y).backward()
        self.dense_gradient = [weight.grad for weight in effective]
        for i in range(3):
            trained = (self.trained or self.used)[i]
            slope = self.alpha * self.phi[i].abs() ** (self.alpha - 1.0)
            gradient = (self.dense_gradient[i] + self.penalty(i)) * slope * trained
            self.momentum[i] = MOMENTUM * self.momentum[i] + gradient
            self.phi[i] = torch.where(trained, self.phi[i] - LR * self.momentum[i], self.phi[i])

    def use(self, masks: Masks) -> None:
        for i, mask in enumerate(masks):
            self.used[i] = mask
            self.phi[i] = self.phi[i] * mask
            self.momentum[i] = self.momentum[i] * mask

    def largest(self, shares: list[float]) -> Masks:
        return [top(self.theta(i).abs(), round(share * self.phi[i].numel())) for i, share in enumerate(shares)]


def top(scores: Tensor, count: int) -> Tensor:
    order = sorted(range(scores.numel()), key=lambda index: -scores.flatten()[index].item())
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[order[:count]] = True
    return mask.view(scores.shape)


def erk(density: float) -> list[float]:
    return list(erk_densities({str(i): shape for i, shape in enumerate(SHAPES)}, density).values())


def pair(name: str, alpha: float, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer, Controller, Plain]:
    layers = [nn.Linear(columns, rows, bias=False) for rows, columns in SHAPES]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).double()
    plain = Plain([layer.weight.detach().clone() for layer in layers], alpha)
    if alpha != 1.0:
        powerpropagate(model, alpha)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    return model, optimizer, make(name, model, optimizer, sparsity=SPARSITY, **options), plain


def follow(name: str, alpha: float, update: Callable[[Plain, int, Controller], None], **options: Any) -> Controller:
    """Train both, and compare masks and weights after each step and at the end."""
    model, optimizer, controller, plain = pair(name, alpha, **options)
    update(plain, 0, controller)
    for step in range(1, STEPS + 1):
        x, y = make_batch("linear", step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x.double()), y).backward()
        optimizer.step()
        controller.step()
        plain.step(x, y)
        update(plain, step, controller)
        for i, each in enumerate(controller.weights):
            assert torch.equal(each.active, plain.used[i]), f"step {step}, layer {i}"
            torch.testing.assert_close(each.phi, plain.phi[i], rtol=1e-6, atol=1e-9)  # scales are float32
            torch.testing.assert_close(each.weight.value.detach(), plain.theta(i) * plain.used[i], rtol=1e-5, atol=1e-8)
    controller.finalize()
    return controller


alphas = pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])


@alphas
def test_one_shot(alpha: float) -> None:
    def update(plain: Plain, step: int, _: Controller) -> None:
        if step == 9:
            plain.use(plain.largest(erk(1.0 - SPARSITY)))

    follow("one_shot", alpha, update)


@alphas
def test_gradual(alpha: float) -> None:
    def update(plain: Plain, step: int, _: Controller) -> None:
        if step in (2, 5, 8, 11):  # start 2, every 3, stop 12: the last is at 11
            sparsity = SPARSITY + (0.1 - SPARSITY) * (1.0 - (step - 2) / (3 * 3)) ** 3
            plain.use(plain.largest(erk(1.0 - sparsity)))

    assert follow("gradual", alpha, update, initial=0.1).sparsity == pytest.approx(SPARSITY, abs=0.01)


@alphas
@pytest.mark.parametrize("name", ["iterative", "rewinding"])
def test_iterative(name: str, alpha: float) -> None:
    early: list[Tensor] = []

    def update(plain: Plain, step: int, _: Controller) -> None:
        if step == 2:
            early[:] = [phi.clone() for phi in plain.phi]
        if step in (4, 8, 12):
            masks = plain.largest(erk((1.0 - SPARSITY) ** (step / 12)))
            if name == "rewinding":
                plain.phi = [phi.clone() for phi in early]
                plain.momentum = [torch.zeros_like(phi) for phi in early]
            plain.use(masks)

    follow(name, alpha, update)


def start_randomly(plain: Plain, controller: Controller) -> None:
    """Take the drawn masks; as many as ERK says, and the weights scaled to keep the variance of outputs."""
    shares = erk(1.0 - SPARSITY)
    for i, each in enumerate(controller.weights):
        assert int(each.active.sum()) == round(shares[i] * each.active.numel())
    plain.use([each.active.clone() for each in controller.weights])
    scales = [(mask.numel() / mask.sum()) ** (0.5 / plain.alpha) for mask in plain.used]
    plain.phi = [phi * scale for phi, scale in zip(plain.phi, scales, strict=True)]


@alphas
def test_static(alpha: float) -> None:
    def update(plain: Plain, step: int, controller: Controller) -> None:
        if step == 0:
            start_randomly(plain, controller)

    follow("static", alpha, update)


def grown_size(theta: Tensor, used: Tensor) -> float:
    """The magnitude at the 0.1 quantile of the weights in use."""
    ordered = sorted(theta[used].abs().tolist())
    return ordered[int(0.1 * len(ordered))]


@alphas
@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("name", ["rigl", "set"])
def test_drop_and_grow(name: str, decay: str, alpha: float) -> None:
    def update(plain: Plain, step: int, controller: Controller) -> None:
        if step == 0:
            start_randomly(plain, controller)
        if step not in (3, 6, 9, 12):
            return
        factor = {"cosine": 0.5 * (1 + math.cos(math.pi * step / 12)), "linear": 1 - step / 12, "constant": 1.0}[decay]
        masks, starts = [], []
        for i, used in enumerate(plain.used):
            theta, gradient = plain.theta(i), plain.dense_gradient[i]
            exchanged = int(0.5 * factor * int(used.sum()))
            kept = top(theta.abs().masked_fill(~used, -1.0), int(used.sum()) - exchanged)
            if name == "rigl":
                grown = top(gradient.abs().masked_fill(kept, -1.0), exchanged)
            else:  # the draw is the controller's own; it must keep to the rules
                grown = controller.weights[i].active & ~kept
                assert int(grown.sum()) == exchanged
            new, start = grown & ~used, torch.zeros_like(theta)
            if alpha != 1.0:
                sign = controller.weights[i].phi.sign() if name == "set" else -gradient.sign()
                assert (sign[new] != 0.0).all()
                start = sign * grown_size(theta, used) ** (1.0 / alpha)
            masks.append(kept | grown)
            starts.append((new, start))
        plain.use(masks)
        for i, (new, start) in enumerate(starts):
            plain.phi[i] = torch.where(new, start, plain.phi[i])

    controller = follow(name, alpha, update, drop_fraction=0.5, decay=decay)
    rows = controller.report()
    assert sum(row.grown for row in rows) > 5
    assert all(row.grown == row.dropped for row in rows)
    assert all(row.ever_active <= row.active + row.grown for row in rows)


@alphas
def test_top_kast(alpha: float) -> None:
    def update(plain: Plain, step: int, controller: Controller) -> None:
        if step in (0, 3, 6, 9, 12):
            before = plain.trained
            plain.used, plain.trained = plain.largest(erk(0.3)), plain.largest(erk(0.6))
            for i in range(3):  # a weight enters B without momentum
                old = plain.trained[i] if before is None else before[i]
                plain.momentum[i] = plain.momentum[i] * (plain.trained[i] & old)
            # The loss has penalty / 2 times theta^2 in A, and that divided by A's density of 0.3 in B alone.
            plain.penalty = lambda i: 0.01 * plain.theta(i) * (1.0 + (1.0 / 0.3 - 1.0) * ~plain.used[i])
        assert isinstance(controller, TopKAST)
        for i, each in enumerate(controller.weights):
            assert torch.equal(controller.backward[each.name], plain.trained[i])

    follow("top_kast", alpha, update, penalty=0.01)


def test_the_gradient_of_growth_is_the_dense_one_of_the_step_itself() -> None:
    """A known mistake elsewhere: scores of a gradient that the mask has zeroed, so that growth goes by position."""
    model, optimizer, controller, plain = pair("rigl", 2.0)
    assert isinstance(controller, RigL)
    start_randomly(plain, controller)
    for step in range(1, 4):
        x, y = make_batch("linear", step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x.double()), y).backward()
        watched = [each.masked.full_gradient for each in controller.weights]
        if step < 3:
            assert watched == [None] * 3, "no dense gradient between updates"
        else:
            plain.step(x, y)
            for one, other in zip(watched, plain.dense_gradient, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
                assert isinstance(one, Tensor)
            assert all(one[~each.active].any() for one, each in zip(watched, controller.weights, strict=True))
        optimizer.step()
        if step < 3:
            plain.step(x, y)
        controller.step()
