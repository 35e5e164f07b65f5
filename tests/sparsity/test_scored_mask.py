"""Masks by learned scores against a few lines of plain torch, and what they learn."""

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator, powerpropagate, select_task
from cl_powerprop.sparsity.scored_mask import ScoredMask
from cl_powerprop.sparsity.topk import kth_largest

from ..devices import device

pytestmark = pytest.mark.cuda

IN, OUT = 20, 8


def scored_layer(alpha: float, density: float) -> tuple[nn.Linear, MaskAllocator, ScoredMask]:
    torch.manual_seed(0)
    network = powerpropagate(nn.Sequential(nn.Linear(IN, OUT, bias=False)), alpha).to(device())
    allocator = MaskAllocator(network)
    scored = ScoredMask(allocator.phi("0"), density)
    scored.draw(generator(0, "scores", 0))
    return network[0], allocator, scored


def reference(phi: Tensor, scores: Tensor, alpha: float, count: int, frozen: Tensor) -> Tensor:
    """Return the weight in use; autograd knows the straight-through estimator from ``mask + s - s.detach()``."""
    theta = phi.sign() * phi.abs() ** alpha
    theta = torch.where(frozen, theta.detach(), theta)
    magnitude = scores.abs()
    mask = torch.zeros_like(magnitude).flatten()
    mask[magnitude.flatten().argsort(descending=True)[:count]] = 1.0
    through = mask.view_as(magnitude) + magnitude - magnitude.detach()
    return theta * mask.view_as(magnitude) + theta.detach() * (through - through.detach())


@pytest.mark.parametrize("alpha", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("share_frozen", [0.0, 0.4])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_weight_and_gradients_are_those_of_the_reference(alpha: float, share_frozen: float, density: float) -> None:
    layer, allocator, scored = scored_layer(alpha, density)
    weight = allocator.weights["0"]
    frozen = (torch.rand(OUT, IN, generator=generator(1, "frozen")) < share_frozen).to(device())
    if frozen.any():
        weight.allocate(frozen, 0)
    weight.train_through(scored)
    x = torch.randn(6, IN, generator=generator(2, "x")).to(device())
    layer(x).square().sum().backward()
    phi = allocator.phi("0").detach().clone().requires_grad_()
    scores = scored.scores.detach().clone().requires_grad_()
    used = reference(phi, scores, alpha, round(density * OUT * IN), frozen)
    nn.functional.linear(x, used).square().sum().backward()
    torch.testing.assert_close(layer.weight, used)
    torch.testing.assert_close(allocator.phi("0").grad, phi.grad)
    torch.testing.assert_close(scored.scores.grad, scores.grad)
    assert torch.equal(scored.mask(), used != 0.0)
    assert (scored.scores.grad != 0.0).all()  # also of the weights that are hidden, or frozen


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("share_frozen", [0.0, 0.4, 1.0])
def test_without_a_density_scores_hide_frozen_weights_only(alpha: float, share_frozen: float) -> None:
    torch.manual_seed(0)
    network = powerpropagate(nn.Sequential(nn.Linear(IN, OUT, bias=False)), alpha).to(device())
    allocator = MaskAllocator(network)
    weight, scored = allocator.weights["0"], ScoredMask(allocator.phi("0"), None)
    scored.draw(generator(0, "scores", 0))
    frozen = (torch.rand(OUT, IN, generator=generator(1, "frozen")) < share_frozen).to(device())
    if frozen.any():
        weight.allocate(frozen, 0)
    weight.train_through(scored)
    theta = allocator.theta("0")
    assert torch.equal(network[0].weight, theta), "nothing is hidden at first"
    with torch.no_grad():
        scored.scores.copy_(torch.randn(OUT, IN, generator=generator(2, "moved")))
    hidden = frozen & (scored.scores <= 0.0)
    x = torch.randn(6, IN, generator=generator(3, "x")).to(device())
    network(x).square().sum().backward()
    used = torch.where(hidden, 0.0, theta).requires_grad_()
    nn.functional.linear(x, used).square().sum().backward()
    assert torch.equal(network[0].weight, used)
    assert used.grad is not None
    torch.testing.assert_close(scored.scores.grad, used.grad * theta)
    of_phi = used.grad * alpha * allocator.phi("0").detach().abs() ** (alpha - 1.0)
    torch.testing.assert_close(allocator.phi("0").grad, torch.where(frozen, 0.0, of_phi))
    assert torch.equal(scored.mask() | ~frozen, ~hidden)


def test_a_finished_task_is_computed_through_its_own_mask_while_the_next_one_learns_its() -> None:
    layer, allocator, scored = scored_layer(2.0, 0.3)
    first = torch.rand(OUT, IN, generator=generator(3, "mask")).to(device()) < 0.5
    allocator.propose({"0": first})
    allocator.end_task()
    allocator.begin_task(generator(0, "next"))
    allocator.weights["0"].train_through(scored)
    in_training = layer.weight != 0.0
    assert torch.equal(in_training, scored.mask())
    select_task(allocator.model, 0)
    assert torch.equal(layer.weight != 0.0, first)
    select_task(allocator.model, 1)
    assert torch.equal(layer.weight != 0.0, in_training)
    chosen = ~scored.mask()
    allocator.propose({"0": chosen})
    assert torch.equal(layer.weight != 0.0, chosen)


def test_scores_alone_learn_a_task() -> None:
    """Weights that are never trained classify by the mask that is found over them."""
    torch.manual_seed(0)
    network = powerpropagate(nn.Sequential(nn.Linear(IN, 64), nn.ReLU(), nn.Linear(64, 3)), 1.0).to(device())
    allocator = MaskAllocator(network)
    scored = {name: ScoredMask(allocator.phi(name), 0.5) for name in allocator.weights}
    for name, each in scored.items():
        each.draw(generator(0, name))
        allocator.weights[name].train_through(each)
    optimizer = torch.optim.Adam([each.scores for each in scored.values()], lr=0.01)
    x = torch.randn(300, IN, generator=generator(4, "x")).to(device())
    y = x[:, :3].argmax(1)
    before = allocator.phi("0").detach().clone()
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    assert (network(x).argmax(1) == y).float().mean() > 0.75
    assert torch.equal(allocator.phi("0"), before)


@pytest.mark.parametrize("count", [1, 3, 250, 999, 1000])
def test_the_kth_largest_value(count: int) -> None:
    values = torch.randn(10, 100, generator=generator(5, "values")).to(device())
    assert kth_largest(values, count) == values.flatten().sort(descending=True).values[count - 1]
