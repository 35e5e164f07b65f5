"""Networks, learners and plugins that cannot be stacked, or only in part."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop.errors import ConfigurationError, DivergedError
from cl_powerprop.optimizers.sgd import _fill_buffers
from cl_powerprop.plugins import PackNetPlugin
from cl_powerprop.registry import find
from cl_powerprop.training.stackable import Epoch
from cl_powerprop.training.stacked_network import NotStackedError, StackedNetwork, network_key
from cl_powerprop.training.stacked_optimizer import StackedOptimizer, moves_several

from .seeds import HIDDEN, assert_equal, assert_same, train


class Reader(nn.Module):
    """Reads an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.LSTM(8, 6, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.reader(images.squeeze(1))[0]  # type: ignore[no-any-return]


class Choosing(nn.Module):
    """Computes what the values of the batch ask for."""

    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


class Tied(nn.Module):
    """Uses one layer twice."""

    pure_forward = True

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.layer(images.flatten(1)).tanh()) * self.scale  # type: ignore[no-any-return]


def changed(features: Callable[[], nn.Module]) -> Any:
    """Return what puts other features into a learner's network, before it has trained."""

    def change(learner: Any) -> None:
        torch.manual_seed(learner.seed)
        learner.model = nn.Sequential(features(), nn.Flatten(), nn.LazyLinear(10))
        learner.model(torch.zeros(2, 1, 8, 8))
        learner.optimizer = torch.optim.AdamW(learner.model.parameters(), lr=0.01, fused=True)

    return change


@pytest.mark.parametrize(
    "features", [lambda: nn.Dropout(0.5), Reader, Choosing], ids=["random numbers", "recurrent", "depends on values"]
)
def test_networks_that_cannot_be_stacked_train_alone_to_the_bit(
    features: Callable[[], nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    words = (
        "strategy=naive",
        "model.heads=shared",
        "train.epochs=2",
        "train.clip_norm=null",
        "train.schedule=constant",
    )

    def seeded(learner: Any) -> None:
        def reset(*_: Any) -> None:
            torch.manual_seed(learner.seed)  # learners would draw in turns from torch's own generator

        changed(features)(learner)
        learner.model.register_forward_pre_hook(reset)

    runs = [train((0, 1), *words, together=at_once, change=seeded) for at_once in (False, True)]
    for alone, together in zip(*runs, strict=True):
        assert together.together == 0
        assert_equal(alone.state, together.state)
    assert caplog.text.count("seeds are trained one after the other") == 1


def test_one_layer_twice() -> None:
    words = ("strategy=naive", "model.heads=shared", "train.clip_norm=null", "benchmark.n_tasks=1")
    runs = [train((0, 1), *words, together=at_once, change=changed(Tied)) for at_once in (False, True)]
    for alone, together in zip(*runs, strict=True):
        assert together.together == 3
        assert_same(alone.state, together.state, 1e-5)


def test_a_handler_of_a_derived_class_that_says_nothing_of_its_own() -> None:
    class Own(PackNetPlugin):
        def after_backward(self, strategy: Any, **_: Any) -> None:
            """Do something that the base class does not know of."""

    class Quiet(PackNetPlugin):
        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            """Do something between epochs, which concerns no step."""

    (run,) = train([0], HIDDEN, "strategy=packnet", "benchmark.n_tasks=1", "train.epochs=2", together=False)
    learner, experience = run.learner, run.parts.benchmark.streams["train"][0]
    learner.experience, learner.adapted_dataset = experience, experience.dataset
    learner.make_train_dataloader()
    plugin = run.parts.strategy.plugin
    for kind, stacks in ((PackNetPlugin, True), (Own, False), (Quiet, True)):
        plugin.__class__ = kind
        assert (Epoch(learner).key() is not None) == stacks


def test_optimizers_that_mix_weights_or_have_hooks_of_their_own() -> None:
    parameters = [nn.Parameter(torch.ones(3))]
    assert moves_several(torch.optim.RMSprop(parameters))
    assert not moves_several(torch.optim.LBFGS(parameters))

    class Own(torch.optim.SGD):
        """May do anything."""

    assert not moves_several(Own(parameters, lr=0.1))
    hooked = torch.optim.SGD(parameters, lr=0.1)
    hooked.register_step_pre_hook(_fill_buffers)
    assert moves_several(hooked)
    hooked.register_step_post_hook(Hook().acts)
    assert not moves_several(hooked)
    other = torch.optim.SGD(parameters, lr=0.1)
    other.register_step_pre_hook(lambda *_: None)
    assert not moves_several(other), "it may hold something of its own"


class Hook:
    """Keeps something of the optimizer that it hooks into."""

    def acts(self, *_: Any) -> None:
        """Act on the weights that it knows."""


@pytest.mark.parametrize("kind", ["Adagrad", "RMSprop", "Adam", "SGD"])
def test_a_state_of_several_steps_is_taken_and_given(kind: str) -> None:
    """Stacked steps between steps alone, against steps alone; the state of one that comes from elsewhere fits in."""
    options = {"RMSprop": {"momentum": 0.9, "centered": True}, "Adam": {"amsgrad": True}, "SGD": {"momentum": 0.9}}

    def make() -> tuple[list[nn.Parameter], list[Any]]:
        values = [torch.arange(6.0).view(2, 3) + seed for seed in range(3)]
        parameters = [nn.Parameter(value) for value in values]
        made = getattr(torch.optim, kind)
        return parameters, [made([each], lr=0.1, weight_decay=0.01, **options.get(kind, {})) for each in parameters]

    (alone, own), (rows, mirrored) = make(), make()
    stacked = torch.stack([row.detach() for row in rows]).requires_grad_()
    together = StackedOptimizer(mirrored, lambda _: stacked)

    def step(parameters: Sequence[Tensor], optimizers: Sequence[Any], gradient: Tensor) -> None:
        for parameter, optimizer, each in zip(parameters, optimizers, gradient, strict=True):
            parameter.grad = each.clone()
            optimizer.step()

    for turn in range(4):
        gradient = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(turn))
        step(alone, own, gradient)
        if turn == 2:  # one of the steps is made by each alone
            step(rows, mirrored, gradient)
            with torch.no_grad():
                stacked.copy_(torch.stack(rows))
            continue
        together.load()
        together.follow_rates()
        stacked.grad = gradient.clone()
        together.step()
        together.store()
        with torch.no_grad():
            for row, value in zip(rows, stacked, strict=True):
                row.copy_(value)
    for one, other, first, second in zip(alone, rows, own, mirrored, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
        states = [optimizer.state_dict()["state"][0] for optimizer in (first, second)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.allclose(torch.as_tensor(states[0][n]), torch.as_tensor(states[1][n])) for n in states[0])


def test_a_network_is_computed_as_each_alone() -> None:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return find("model", "resnet18").make((1, 8, 8), width=4, norm="batch", bias=True).double()

    models, images = [make(seed) for seed in range(3)], torch.randn(3, 5, 1, 8, 8, dtype=torch.float64)
    stacked = StackedNetwork(models)
    stacked.load()
    outputs = stacked(images)
    for model, image, output in zip(models, images, outputs, strict=True):
        assert torch.allclose(model(image), output)
    stacked.store()  # statistics after one batch, which each alone has seen too by now
    again = [make(seed) for seed in range(3)]
    for model, fresh, image in zip(models, again, images, strict=True):
        fresh(image)
        assert_same(fresh.state_dict(), model.state_dict(), 1e-9)


def test_what_is_computed_wrongly_is_found() -> None:
    class Fixed(nn.Module):
        """Has a tensor that is no buffer, and differs from network to network."""

        def __init__(self, seed: int) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.scale = torch.tensor(float(seed))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale  # type: ignore[no-any-return]

    models = [Fixed(seed) for seed in (1, 2)]
    assert network_key(models[0]) == network_key(models[1])
    with pytest.raises(NotStackedError, match="others than alone"):
        StackedNetwork(models).try_out(torch.zeros(1, 4))


def test_batch_norm_of_a_single_sample_is_refused_as_alone() -> None:
    words = ("strategy=naive", "model=resnet18", "model.width=2", "train.batch_size=1")
    for at_once in (False, True):
        with pytest.raises(ConfigurationError, match="batch norm cannot normalise a single sample"):
            train((0, 1), *words, together=at_once)


def test_a_loss_that_is_not_finite_ends_its_seed(caplog: pytest.LogCaptureFixture) -> None:
    def change(learner: Any) -> None:
        if learner.seed == 1:
            with torch.no_grad():
                next(learner.model.parameters()).fill_(torch.nan)

    with caplog.at_level(logging.WARNING), pytest.raises(DivergedError, match="task 0, epoch 1"):
        train((0, 1, 2), HIDDEN, "strategy=naive", together=True, change=change)
