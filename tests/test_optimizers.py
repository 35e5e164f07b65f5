"""Parameters that have no gradient in some steps, as heads of other tasks do: each optimizer against plain formulas."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.composition import compose
from cl_powerprop.registry import find

LR, DECAY = 0.1, 0.01
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "sgd": ("optimizer=sgd", "optimizer.momentum=0"),
    "momentum": ("optimizer=sgd", "optimizer.momentum=0.9"),
    "nesterov": ("optimizer=sgd", "optimizer.momentum=0.9", "optimizer.nesterov=true"),
    "adam": ("optimizer=adam",),
    "adamw": ("optimizer=adamw",),
}


def make(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    config = compose([*OPTIMIZERS[name], f"optimizer.lr={LR}", f"optimizer.weight_decay={DECAY}"]).optimizer
    made: torch.optim.Optimizer = find("optimizer", config.name).make([{"params": parameters}], config)
    return made


def reference(name: str, value: Tensor, gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """One step for one parameter that has a gradient, as in the papers, in double precision."""
    state["step"] = step = state.get("step", 0) + 1
    if name in ("sgd", "momentum", "nesterov"):
        gradient = gradient + DECAY * value
        momentum = 0.0 if name == "sgd" else 0.9
        state["v"] = velocity = momentum * state.get("v", 0.0) + gradient
        return value - LR * (gradient + momentum * velocity if name == "nesterov" else velocity)
    if name == "adam":
        gradient = gradient + DECAY * value
    else:
        value = value * (1 - LR * DECAY)
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * gradient
    state["s"] = 0.999 * state.get("s", 0.0) + 0.001 * gradient**2
    return value - LR * (state["m"] / (1 - 0.9**step)) / ((state["s"] / (1 - 0.999**step)).sqrt() + 1e-8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_without_a_gradient_does_not_move(name: str) -> None:
    draws = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 2, generator=draws)) for _ in range(3)]
    optimizer = make(name, parameters)
    expected = [parameter.detach().double() for parameter in parameters]
    states: list[dict[str, Any]] = [{} for _ in parameters]
    # The first has a gradient in every step, the second from the third step on, the third in every other step.
    for with_gradient in ((0, 2), (0,), (0, 1, 2), (0, 1), (1,), (), (0, 1, 2), (2,)):
        before = [parameter.detach().clone() for parameter in parameters]
        for index, parameter in enumerate(parameters):
            given = torch.randn(3, 2, generator=draws)
            parameter.grad = given if index in with_gradient else None
            if index in with_gradient:
                expected[index] = reference(name, expected[index], given.double(), states[index])
        optimizer.step()
        for index, parameter in enumerate(parameters):
            if index not in with_gradient:
                assert torch.equal(parameter, before[index])
            torch.testing.assert_close(parameter.detach().double(), expected[index], rtol=1e-5, atol=1e-6)


def test_where_all_have_a_gradient_steps_are_those_of_torch_to_the_bit() -> None:
    draws = torch.Generator().manual_seed(0)
    values = [torch.randn(5, generator=draws) for _ in range(2)]
    ours, theirs = ([nn.Parameter(value.clone()) for value in values] for _ in range(2))
    made = make("nesterov", ours)
    plain = torch.optim.SGD(theirs, LR, 0.9, nesterov=True, weight_decay=DECAY, fused=True)
    for _ in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(5, generator=draws)
            other.grad = one.grad.clone()
        made.step()
        plain.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
