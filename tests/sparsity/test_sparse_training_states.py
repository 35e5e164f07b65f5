"""Sparse training that is saved in the middle of its schedule goes on to the bit; gradients that are watched."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity import Controller, RigL, TopKAST, powerpropagate

from .controllers import CONTROLLERS, STEPS, make, one_step
from .networks import bits, make_batch, make_network
from .recipes import RECIPES

Training = tuple[nn.Module, torch.optim.Optimizer, Controller]


def set_up(name: str, recipe: str, **options: Any) -> Training:
    model = powerpropagate(make_network("lstm", seed=1), 2.0)
    optimizer = RECIPES[recipe].optimizer(model)
    return model, optimizer, make(name, model, optimizer, **({"sparsity": 0.8, "seed": 5} | options))


def train(training: Training, first: int, last: int, recipe: str) -> None:
    for step in range(first, last):
        one_step(*training, "lstm", step, RECIPES[recipe])


def everything(training: Training) -> dict[str, Any]:
    model, optimizer, controller = training
    values = {name: bits(value) for name, value in model.named_parameters()}
    for index, state in optimizer.state_dict()["state"].items():
        values |= {f"{index}/{name}": value.tolist() for name, value in state.items() if torch.is_tensor(value)}
    state = controller.state_dict()
    values |= {name: value.tolist() if torch.is_tensor(value) else value for name, value in state.items()}
    return values | {"report": controller.report(), "density": controller.training_density()}


def by_torch(states: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def by_safetensors(states: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """The controller's state as tensors and JSON; the optimizer's by torch."""
    controller = states[2]
    tensors = {name: value for name, value in controller.items() if torch.is_tensor(value)}
    safetensors.torch.save_file(tensors, folder / "controller.safetensors")
    rest = json.loads(json.dumps({name: value for name, value in controller.items() if name not in tensors}))
    return [*by_torch(states[:2], folder), safetensors.torch.load_file(folder / "controller.safetensors") | rest]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["sgd_nesterov_decay_clip", "adamw_theta_clip"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
@pytest.mark.parametrize("name", CONTROLLERS)
def test_resumed_to_the_bit(name: str, order: tuple[int, ...], recipe: str, tmp_path: Path) -> None:
    whole = set_up(name, recipe)
    train(whole, 0, STEPS, recipe)
    whole[2].finalize()
    for at in (1, 5, 8, STEPS):
        first = set_up(name, recipe)
        train(first, 0, at, recipe)
        if at == STEPS:
            first[2].finalize()
        save = by_torch if order[0] else by_safetensors
        states = save([each.state_dict() for each in first], tmp_path)
        second = set_up(name, recipe)
        for index in order:  # whichever comes first
            second[index].load_state_dict(states[index])
        train(second, at, STEPS, recipe)
        second[2].finalize()
        assert everything(second) == everything(whole)


def test_the_state_of_other_layers_is_refused() -> None:
    state = set_up("rigl", "sgd_momentum")[2].state_dict()
    with pytest.raises(ConfigurationError, match="the state of the sparse training has no layer output"):
        set_up("rigl", "sgd_momentum")[2].load_state_dict(
            {name: value for name, value in state.items() if not name.startswith("output/")}
        )
    with pytest.raises(ConfigurationError, match="this sparse training has no layer output"):
        set_up("rigl", "sgd_momentum", exempt=["last"])[2].load_state_dict(state)


def dense_gradient(alpha: float, x: torch.Tensor, y: torch.Tensor, uses: int = 1) -> torch.Tensor:
    """dL/dtheta of a layer that is used some times in a row, by a plain copy of what is in use."""
    layer = nn.Linear(6, 6, bias=False)
    with torch.no_grad():
        layer.weight.copy_(watched_model(alpha)[0].weight)
    for _ in range(uses):
        x = layer(x).tanh()
    nn.functional.cross_entropy(x, y).backward()
    assert layer.weight.grad is not None
    return layer.weight.grad


def watched_model(alpha: float) -> tuple[nn.Linear, RigL]:
    torch.manual_seed(3)
    layer = nn.Linear(6, 6, bias=False)
    if alpha != 1.0:
        powerpropagate(layer, alpha)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.1)
    return layer, RigL(layer, optimizer, sparsity=0.5, stop=10, every=1)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("uses", [1, 3])
def test_watched_gradients_of_several_batches_and_uses_add_up(alpha: float, uses: int) -> None:
    layer, controller = watched_model(alpha)
    expected = torch.zeros(6, 6)
    for seed in range(3):
        x, y = make_batch("linear", seed)
        expected += dense_gradient(alpha, x, y, uses)
        for _ in range(uses):
            x = layer(x).tanh()
        nn.functional.cross_entropy(x, y).backward()
    with torch.no_grad():
        layer(make_batch("linear", 9)[0])  # no part of training
    gradient = controller.weights[0].gradient.clone()
    torch.testing.assert_close(gradient, expected)
    nn.utils.clip_grad_norm_(layer.parameters(), 1e-3)
    torch.testing.assert_close(controller.weights[0].gradient, expected, msg="clipping is not its business")
    before = controller.weights[0].active.clone()
    controller.optimizer.step()
    controller.step()
    kept = before & controller.weights[0].active
    grown = controller.weights[0].active & ~kept
    candidates = gradient.abs().masked_fill(kept, -1.0)
    assert candidates[grown].min() >= candidates[~grown].max()


def test_pruning_by_a_gradient_before_anything_is_hidden_leaves_the_gradients_alone() -> None:
    layer = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    controller = make("one_shot", layer, optimizer, sparsity=0.5, score="saliency")
    for step in range(9):
        one_step(layer, optimizer, controller if step < 8 else None, "linear", step)
    theta, gradient = layer.weight.detach(), layer.parametrizations.weight.original.grad
    score = (theta * gradient).abs().flatten()
    layer.zero_grad(set_to_none=False)  # in place
    expected = torch.zeros(18, dtype=torch.bool)
    expected[score.argsort(descending=True)[:9]] = True
    controller.step()
    assert controller.weights[0].active.flatten().tolist() == expected.tolist()


def test_a_layer_that_a_step_does_not_use_stays_within_its_budget() -> None:
    class Forks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, 3), nn.Linear(6, 3)
            self.turn = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.turn += 1
            return (self.one if self.turn % 2 else self.other)(x)  # type: ignore[no-any-return]

    for alpha in (1.0, 2.0):
        model = powerpropagate(Forks(), alpha)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        controller = make("rigl", model, optimizer, sparsity=0.5)
        for step in range(STEPS):
            one_step(model, optimizer, controller, "linear", step)
            assert [row.active for row in controller.report()] == [9, 9]
        for each in controller.weights:  # a grown weight is not left at the point of rest
            assert alpha == 1.0 or (each.phi[each.active] != 0.0).all()


def test_a_step_without_any_backward_pass_is_an_error() -> None:
    _, controller = watched_model(2.0)
    with pytest.raises(RuntimeError, match="no layer got a gradient in step 1; call the controller's step"):
        controller.step()


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_diverged_network_keeps_its_budgets(name: str) -> None:
    training = set_up(name, "sgd_momentum")
    controller = training[2]
    train(training, 0, 2, "sgd_momentum")
    with torch.no_grad():
        for weight in controller.layers.values():
            weight.stored[weight.stored != 0.0] = torch.nan
    train(training, 2, STEPS, "sgd_momentum")
    controller.finalize()
    assert controller.sparsity == pytest.approx(0.8, abs=0.01)
    for weight in controller.weights:
        assert (weight.weight.value[~weight.active] == 0.0).all()


def test_weights_of_no_optimizer_and_frozen_ones() -> None:
    model = make_network("linear")
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9)
    controller = make("rigl", model, optimizer, sparsity=0.5)
    for step in range(STEPS):
        one_step(model, optimizer, controller, "linear", step)
    assert controller.sparsity == 0.5
    frozen = make_network("linear")
    frozen[0].weight.requires_grad_(False)
    assert list(Controller(frozen, optimizer).layers) == ["2"]


def test_top_kast_leaves_a_loss_scale_that_is_too_high_alone() -> None:
    """A gradient scaler then leaves out the optimizer's step, not the controller's."""
    model, optimizer, controller = set_up("top_kast", "adamw_theta_clip")
    assert isinstance(controller, TopKAST)
    train((model, optimizer, controller), 0, 3, "adamw_theta_clip")
    before = [bits(each.phi) for each in controller.weights]
    controller.step()
    assert before == [bits(each.phi) for each in controller.weights]
