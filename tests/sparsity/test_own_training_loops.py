"""Controllers in training loops as others write them: frozen layers, copies, averages, closures, other optimizers."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import cl_powerprop
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sparsity import (
    ErdosRenyiKernel,
    GradualPruning,
    IterativePruning,
    Magnitude,
    OneShotPruning,
    RigL,
    SparseEvolutionaryTraining,
    ThetaSpaceStep,
    TopKAST,
    maskable_weights,
    powerpropagate,
)

from .controllers import CONTROLLERS, STEPS, make, one_step
from .networks import bits, make_batch, make_network


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_layer_that_was_frozen_after_powerpropagation_stays_as_it_is(name: str) -> None:
    model = powerpropagate(make_network("linear"), 2.0)
    model[0].requires_grad_(False)
    before = bits(model[0].weight)
    optimizer = sgd(model)
    controller = make(name, model, optimizer, sparsity=0.8)
    for step in range(6):
        one_step(model, optimizer, controller, "linear", step)
    controller.finalize()
    assert bits(model[0].weight) == before
    assert list(controller.layers) == ["2"]
    assert controller.exempt == {"0": 48}


def test_a_second_controller_begins_with_the_weights_in_use() -> None:
    model = make_network("linear")
    OneShotPruning(model, sgd(model), sparsity=0.5).finalize()
    optimizer = sgd(model)
    second = GradualPruning(model, optimizer, sparsity=0.75, stop=4, every=2)
    assert second.sparsity == pytest.approx(0.5, abs=0.02)
    assert [each.active for each in second.report()] == [
        int((each.value != 0).sum()) for each in second.layers.values()
    ]
    for step in range(4):
        one_step(model, optimizer, second, "linear", step)
    assert second.sparsity == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("make_optimizer", "moment", "begins_with"),
    [
        (lambda model: torch.optim.Rprop(model.parameters(), lr=0.02), "step_size", 0.02),
        (lambda model: torch.optim.Adagrad(model.parameters(), initial_accumulator_value=1.0), "sum", 1.0),
        (lambda model: torch.optim.Adagrad(model.parameters()), "sum", 0.0),
    ],
)
@pytest.mark.parametrize("name", ["set", "rigl"])
def test_a_grown_weight_begins_as_the_optimizer_does(
    name: str, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], moment: str, begins_with: float
) -> None:
    model = make_network("linear")
    optimizer = make_optimizer(model)
    controller = make(name, model, optimizer, sparsity=0.5)
    for step in range(3):
        before = [each.active for each in controller.weights]
        one_step(model, optimizer, controller, "linear", step)
    grown = [each.active & ~was for each, was in zip(controller.weights, before, strict=True)]
    assert any(where.any() for where in grown)
    for each, where in zip(controller.weights, grown, strict=True):
        assert (optimizer.state[each.weight.stored][moment][where] == torch.tensor(begins_with)).all()
    one_step(model, optimizer, controller, "linear", 9)
    assert any(each.theta[where].any() for each, where in zip(controller.weights, grown, strict=True))


def test_growth_scores_leave_out_the_gradients_of_an_attack_that_asks_for_those_of_the_inputs() -> None:
    """What RigL's docstring advises."""
    model = make_network("linear")
    optimizer = sgd(model)
    controller = RigL(model, optimizer, sparsity=0.5, stop=10, every=1)
    x, y = make_batch("linear", 0)
    x.requires_grad_()
    torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)
    assert not any(each.has_gradient for each in controller.weights)
    nn.functional.cross_entropy(model(x), y).backward()
    for each in controller.weights:
        assert torch.equal(each.gradient[each.active], each.weight.stored.grad[each.active])


WRONG: dict[str, tuple[Callable[[nn.Module, Any], object], str]] = {
    "a share for stop": (lambda *a: RigL(*a, stop=0.75), r"stop must be a whole number of steps, not 0.75; .*round"),
    "gradual's stop": (lambda *a: GradualPruning(*a, stop=0.75, every=3), "stop must be a whole number of steps"),
    "gradual's start": (lambda *a: GradualPruning(*a, stop=9, start=0.5), "start must be a whole number of steps"),
    "Top-KAST's every": (lambda *a: TopKAST(*a, stop=9, every=2.5), "every must be a whole number of steps"),
    "one-shot's step": (lambda *a: OneShotPruning(*a, at=0.5), "at must be a whole number of steps"),
    "iterative's every": (lambda *a: IterativePruning(*a, every=0.1), "every must be a whole number of steps"),
    "a negative stop": (lambda *a: RigL(*a, stop=-5), "stop must be at least 0, not -5"),
    "a start behind stop": (lambda *a: GradualPruning(*a, start=9, stop=5), "start must be from 0 to stop=5, not 9"),
    "one string": (lambda *a: OneShotPruning(*a, exempt="first"), r"must be a list .* not 'first'"),
    "one type": (lambda *a: OneShotPruning(*a, exempt=nn.Linear), "exempt must be a list"),
    "a module": (lambda *a: OneShotPruning(*a, exempt=[a[0][0]]), r"not objects such as Linear\(\.\.\.\)"),
    "a class": (lambda *a: OneShotPruning(*a, distribution=ErdosRenyiKernel), r"write ErdosRenyiKernel\(\)"),
    "a score's class": (lambda *a: RigL(*a, stop=9, drop=Magnitude), r"not a class; write Magnitude\(\)"),
    "text": (lambda *a: OneShotPruning(*a, sparsity="0.9"), r"sparsity must be a number in \[0, 1\), not '0.9'"),
    "initial": (
        lambda *a: GradualPruning(*a, stop=9, initial=0.2),
        "initial must be from 0 to the sparsity, 0, not 0.2",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_in_one_line(case: str) -> None:
    wrong, message = WRONG[case]
    model = make_network("linear")
    with pytest.raises(ConfigurationError, match=message) as caught:
        wrong(model, sgd(model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("one", "other"), [("rigl", "top_kast"), ("iterative", "gradual")])
def test_the_state_of_another_controller_is_refused(one: str, other: str) -> None:
    first, second = make_network("linear"), make_network("linear")
    state = make(one, first, sgd(first)).state_dict()
    with pytest.raises(ConfigurationError, match=r"the state is of a .*, and this is a .*"):
        make(other, second, sgd(second)).load_state_dict(state)


def test_powerpropagation_after_a_controller_says_what_to_do() -> None:
    model = make_network("linear")
    SparseEvolutionaryTraining(model, sgd(model), stop=9)
    with pytest.raises(ConfigurationError, match="call powerpropagate once, before the optimizer and a controller"):
        powerpropagate(model, 2.0)


def test_the_package_itself_has_the_controllers() -> None:
    assert cl_powerprop.RigL is RigL
    assert cl_powerprop.TopKAST is TopKAST


def by_torch(objects: Any) -> Any:
    file = io.BytesIO()
    torch.save(objects, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied_by", [copy.deepcopy, by_torch])
@pytest.mark.parametrize("name", CONTROLLERS)
def test_a_copy_of_everything_trains_as_the_original(name: str, copied_by: Callable[[Any], Any]) -> None:
    model = powerpropagate(make_network("linear"), 2.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
    space = ThetaSpaceStep(optimizer, model)
    controller = make(name, model, optimizer, sparsity=0.6, **({"penalty": 0.1} if name == "top_kast" else {}))
    ends = []
    for step in range(5):
        one_step(model, optimizer, controller, "linear", step)
    everything = (model, optimizer, space, controller)
    for model, optimizer, _, controller in (everything, copied_by(everything)):
        for step in range(5, STEPS):
            one_step(model, optimizer, controller, "linear", step)
        controller.finalize()
        ends.append([bits(each.phi) for each in controller.weights])
    assert ends[0] == ends[1]


def test_a_copy_of_a_step_in_theta_space_that_was_removed_stays_so() -> None:
    model = powerpropagate(make_network("linear"), 2.0)
    optimizer = sgd(model)
    space = ThetaSpaceStep(optimizer, model)
    space.remove()
    _, copied, _ = copy.deepcopy((model, optimizer, space))
    assert not copied._optimizer_step_pre_hooks


@pytest.mark.parametrize("name", CONTROLLERS)
def test_an_average_of_the_model_has_the_masks_of_the_model(name: str) -> None:
    alpha = 1.0 + len(name) % 2
    model = powerpropagate(make_network("batch_norm"), alpha)
    optimizer = sgd(model)
    controller = make(name, model, optimizer, sparsity=0.6)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=False)
    phis = [each.phi.clone() for each in controller.weights]
    for step in range(STEPS):
        one_step(model, optimizer, controller, "batch_norm", step)
        if step == STEPS - 1:
            controller.finalize()
        average.update_parameters(model)
        average(make_batch("batch_norm", step)[0])
        phis = [
            each.phi.clone() if step == 0 else 0.5 * (phi + each.phi)
            for phi, each in zip(phis, controller.weights, strict=True)
        ]
    found = maskable_weights(average.module)
    for each, phi in zip(controller.weights, phis, strict=True):
        expected = (phi * phi.abs() ** (alpha - 1.0)).where(each.active, 0.0)
        torch.testing.assert_close(found[each.name].value, expected)


@pytest.mark.parametrize("by_name", [False, True])
def test_top_kasts_penalty_reaches_the_gradients_of_a_closure(by_name: bool) -> None:
    ends = []
    for closed in (False, True):
        model = make_network("linear")
        optimizer = sgd(model)
        controller = TopKAST(model, optimizer, sparsity=0.6, stop=6, every=2, penalty=0.1)
        for step in range(6):
            x, y = make_batch("linear", step)

            def closure(model: nn.Module = model, optimizer: Any = optimizer, x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss

            if not closed:
                closure()
                optimizer.step()
            elif by_name:
                assert optimizer.step(closure=closure) > 0.0
            else:
                assert optimizer.step(closure) > 0.0
            controller.step()
        ends.append([bits(each.phi) for each in controller.weights])
    assert ends[0] == ends[1]


def test_weights_that_are_loaded_under_top_kast_stay_as_they_were_loaded() -> None:
    model = make_network("linear")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    controller = TopKAST(model, optimizer, sparsity=0.8, distribution="uniform", stop=100, every=50)
    one_step(model, optimizer, controller, "linear", 0)
    best = {
        name: value + 0.5 if value.is_floating_point() and value.dim() else value
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(best)
    one_step(model, optimizer, controller, "linear", 1)
    for each in controller.weights:
        outside = ~controller.backward[each.name]
        loaded = best[f"{each.name}.parametrizations.weight.original"]
        assert outside.any()
        assert bits(each.phi[outside]) == bits(loaded[outside])
