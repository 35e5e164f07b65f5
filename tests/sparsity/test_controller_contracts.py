"""What every controller of sparse training must do, over layers, optimizers, distributions, targets and exponents."""

import copy
import functools
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cl_powerprop.sparsity import Controller, TopKAST, powerpropagate

from ..devices import device
from .controllers import ALWAYS_SPARSE, CONTROLLERS, STEPS, expected_counts, make, one_step, used_counts
from .networks import bits, make_batch, make_network
from .recipes import RECIPES, Recipe

pytestmark = [pytest.mark.slow, pytest.mark.cuda]

NETWORKS = ("linear", "conv2d", "conv_transpose2d", "lstm", "attention")


def set_up(kind: str, recipe: Recipe, alpha: float, name: str, **options: Any) -> tuple[nn.Module, Any, Controller]:
    model = make_network(kind)
    if alpha != 1.0:
        powerpropagate(model, alpha)
    optimizer = recipe.optimizer(model)
    return model, optimizer, make(name, model, optimizer, **options)


def shapes(controller: Controller) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.value.shape) for name, weight in controller.layers.items()}


def within_budget(controller: Controller, distribution: str, sparsity: float) -> bool:
    expected = expected_counts(distribution, shapes(controller), sparsity)
    return all(count <= max(1.0, expected[name] + 1.0) for name, count in used_counts(controller, distribution).items())


def untrained(controller: Controller) -> dict[str, Tensor]:
    """The weights that get no gradient: hidden ones, and in Top-KAST only those outside of B."""
    if isinstance(controller, TopKAST):
        return {name: ~mask for name, mask in controller.backward.items()}
    return {each.name: ~each.active for each in controller.weights}


def moments(optimizer: torch.optim.Optimizer, weight: Tensor, where: Tensor) -> list[Tensor]:
    return [value[where] for value in optimizer.state.get(weight, {}).values() if value.shape == where.shape]


def check_hidden(
    controller: Controller, optimizer: torch.optim.Optimizer, before: dict[str, tuple[Tensor, Tensor]]
) -> None:
    """Hidden weights are 0, and their moments too; Top-KAST's outside of B stay, and enter it without moments."""
    still = untrained(controller)
    for each in controller.weights:
        assert not (each.weight.value[~each.active] != 0.0).any()
        was, phi = before[each.name]
        if isinstance(controller, TopKAST):
            assert bits(each.phi[was]) == bits(phi[was])
            fresh = was & ~still[each.name]
        else:
            assert not (each.phi[~each.active] != 0.0).any()
            fresh = was | still[each.name]
        assert not any(value.any() for value in moments(optimizer, each.weight.stored, fresh))


def train_and_check(kind: str, recipe: Recipe, alpha: float, name: str, distribution: str, sparsity: float) -> None:
    model, optimizer, controller = set_up(
        kind, recipe, alpha, name, sparsity=sparsity, distribution=distribution, exempt=["last"], seed=3
    )
    (exempt,) = controller.exempt
    dense = next(each for each in model.modules() if each is dict(model.named_modules())[exempt])
    start, fewest = dense.weight.detach().clone(), 10**9
    for step in range(STEPS):
        still = untrained(controller)
        before = {each.name: (still[each.name], each.phi.clone()) for each in controller.weights}
        one_step(model, optimizer, controller, kind, step, recipe)
        used = sum(int(each.active.sum()) for each in controller.weights)
        if name in ALWAYS_SPARSE:
            assert within_budget(controller, distribution, sparsity)
        assert used <= fewest or name in ALWAYS_SPARSE, "pruning brings nothing back"
        fewest = used
        check_hidden(controller, optimizer, before)
    controller.finalize()
    expected = expected_counts(distribution, shapes(controller), sparsity)
    active = {each.name: int(each.active.sum()) for each in controller.weights}
    active = {"all": sum(active.values())} if distribution == "global" else active
    for layer, count in active.items():
        assert abs(count - max(1.0, expected[layer])) <= 1.0, layer
    assert within_budget(controller, distribution, sparsity)
    total = sum(each.active.numel() for each in controller.weights)
    assert controller.sparsity == pytest.approx(1.0 - sum(active.values()) / total)
    assert controller.report()[0].active == int(controller.weights[0].active.sum())
    for each in controller.weights:
        assert not each.phi[~each.active].any()
    assert (dense.weight != 0.0).all()
    assert (dense.weight != start).any()
    masks = {each.name: each.active.clone() for each in controller.weights}
    for step in range(2):  # training on changes no mask
        one_step(model, optimizer, controller, kind, 50 + step, recipe)
        for each in controller.weights:
            assert torch.equal(each.active, masks[each.name])
            assert not each.phi[~each.active].any()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_layer_and_optimizer(name: str, kind: str, recipe: str) -> None:
    turn = len(name) + len(kind) + len(recipe)
    alpha, distribution = (1.0, 2.0, 3.5)[turn % 3], ("erk", "uniform", "global")[(turn // 3) % 3]
    train_and_check(kind, RECIPES[recipe], alpha, name, distribution, 0.7)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8, 0.93, 0.99])
@pytest.mark.parametrize("distribution", ["erk", "uniform", "global"])
@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_distribution_and_target(name: str, distribution: str, sparsity: float, alpha: float) -> None:
    train_and_check("lstm", RECIPES["sgd_nesterov_decay_clip"], alpha, name, distribution, sparsity)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(CONTROLLERS)),
    sparsity=st.floats(0.0, 0.999),
    distribution=st.sampled_from(["erk", "uniform", "global"]),
    alpha=st.sampled_from([1.0, 2.0, 3.5]),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    seed=st.integers(0, 5),
)
def test_never_more_weights_than_the_budget(
    name: str, sparsity: float, distribution: str, alpha: float, widths: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    sizes = [6, *widths, 3]
    layers = [nn.Linear(one, other) for one, other in itertools.pairwise(sizes)]
    model = powerpropagate(nn.Sequential(*layers).to(device()), alpha)
    optimizer = RECIPES["adamw_theta_clip"].optimizer(model)
    controller = make(name, model, optimizer, sparsity=sparsity, distribution=distribution, seed=seed)
    for step in range(STEPS):
        one_step(model, optimizer, controller, "linear", 100 * seed + step)
        if name in ALWAYS_SPARSE:
            assert within_budget(controller, distribution, sparsity)
    controller.finalize()
    assert within_budget(controller, distribution, sparsity)


@pytest.mark.parametrize("name", CONTROLLERS)
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_bf16(name: str, how: str) -> None:
    model = powerpropagate(make_network("conv2d"), 2.0)
    if how == "weights":
        model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    controller = make(name, model, optimizer, sparsity=0.6, distribution="global")
    x, y = make_batch("conv2d", 0)
    if how == "weights":
        x = x.to(torch.bfloat16)
    for _ in range(STEPS):
        with torch.autocast(device().type, torch.bfloat16, enabled=how == "autocast"):
            loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        controller.step()
        if name in ALWAYS_SPARSE:
            assert within_budget(controller, "global", 0.6)
    controller.finalize()
    assert controller.sparsity == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_model_that_is_moved_to_bf16_afterwards(name: str) -> None:
    model, optimizer, controller = set_up("linear", RECIPES["sgd_momentum"], 2.0, name, sparsity=0.5)
    for step in range(4):
        one_step(model, optimizer, controller, "linear", step)
    model.to(torch.bfloat16)
    optimizer.state.clear()
    for _ in range(4, STEPS):
        optimizer.zero_grad()
        model(torch.randn(8, 6).to(device(), torch.bfloat16)).square().sum().backward()
        optimizer.step()
        controller.step()
    controller.finalize()
    assert within_budget(controller, "erk", 0.5)


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("name", CONTROLLERS)
def test_an_optimizer_that_mixes_the_weights_of_a_matrix(name: str, alpha: float) -> None:
    """Muon's step moves hidden weights, which the network does not use; grown weights start where they should."""
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).to(device())
    powerpropagate(model, alpha)
    optimizer = torch.optim.Muon(model.parameters(), lr=0.02)
    controller = make(name, model, optimizer, sparsity=0.6)
    for step in range(STEPS):
        before = {each.name: each.active for each in controller.weights}
        one_step(model, optimizer, controller, "linear", step)
        assert name not in ALWAYS_SPARSE or within_budget(controller, "erk", 0.6)
        for each in controller.weights if name in ("set", "rigl") else ():
            grown = each.theta[each.active & ~before[each.name]].abs()
            assert grown.numel() == 0 or (grown == grown[0]).all()
            assert alpha != 1.0 or not grown.any()
    controller.finalize()
    for each in controller.weights:
        assert not each.phi[~each.active].any()


@pytest.mark.parametrize("alpha", [1.0, 2.0])
@pytest.mark.parametrize("name", CONTROLLERS)
def test_compiled_training_is_the_same(name: str, alpha: float) -> None:
    ends = []
    for compiled in (False, True):
        torch._dynamo.reset()
        model, optimizer, controller = set_up("linear", RECIPES["sgd_momentum"], alpha, name, sparsity=0.5)
        forward = torch.compile(model, backend="eager") if compiled else model
        for step in range(STEPS):
            one_step(forward, optimizer, controller, "linear", step)
        controller.finalize()
        ends.append([bits(each.phi) for each in controller.weights])
    torch._dynamo.reset()
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["rewinding", "rigl"])
def test_a_copy_of_all_three_goes_its_own_way(name: str) -> None:
    original = set_up("lstm", RECIPES["adamw_phi_zero_grads"], 2.0, name, sparsity=0.6)
    for step in range(5):
        one_step(*original, "lstm", step)
    copied = copy.deepcopy(original)
    for step in range(5, STEPS):
        one_step(*original, "lstm", step)
    held = [bits(each.phi) for each in original[2].weights]
    for step in range(5, STEPS):
        one_step(*copied, "lstm", step)
    assert [bits(each.phi) for each in copied[2].weights] == held == [bits(each.phi) for each in original[2].weights]


@functools.cache
def early(name: str, end: int) -> Controller:
    model, optimizer, controller = set_up("linear", RECIPES["sgd_momentum"], 2.0, name, sparsity=0.75)
    for step in range(end):
        one_step(model, optimizer, controller, "linear", step)
    before = {each.name: each.phi.clone() for each in controller.weights}
    controller.finalize()
    first = [bits(each.phi) for each in controller.weights]
    controller.finalize()
    assert first == [bits(each.phi) for each in controller.weights]
    for each in controller.weights:  # the end takes weights away, and changes no other
        assert bits(each.phi[each.active]) == bits(before[each.name][each.active])
    return controller


@pytest.mark.parametrize("end", [0, 1, 3, 5, 8])
@pytest.mark.parametrize("name", CONTROLLERS)
def test_training_that_ends_early_has_the_target_all_the_same(name: str, end: int) -> None:
    controller = early(name, end)
    for layer, count in used_counts(controller, "erk").items():
        assert abs(count - expected_counts("erk", shapes(controller), 0.75)[layer]) <= 1.0
