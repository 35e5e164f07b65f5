"""What acts in steps without saying so keeps them from being recorded or stacked."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from avalanche.core import SupervisedPlugin
from torch import nn

from cl_powerprop.assemble import assemble
from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.training.graphs import Graphs
from cl_powerprop.training.unseen import unseen

from .seeds import HIDDEN, SMALL, assert_same, train


def learner_of(*words: str) -> Any:
    return assemble(compose([*SMALL, HIDDEN, "progress=false", *words])).learner


class Counting(nn.Linear):
    """Counts its calls in Python."""


class Saying(nn.Linear):
    pure_forward = True


def first_linear(learner: Any) -> Any:
    return next(module for module in learner.model.modules() if isinstance(module, nn.Linear))


def replace_criterion(learner: Any, criterion: Any) -> None:
    learner._criterion = criterion


ACTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "gradient": (lambda it: next(it.model.parameters()).register_hook(lambda grad: grad), "has a hook"),
    "accumulated": (
        lambda it: next(it.model.parameters()).register_post_accumulate_grad_hook(lambda parameter: None),
        "has a hook",
    ),
    "forward hook": (lambda it: first_linear(it).register_forward_hook(lambda *_: None), "Linear has a hook"),
    "backward hook": (lambda it: first_linear(it).register_full_backward_hook(lambda *_: None), "Linear has a hook"),
    "module": (lambda it: it.model.add_module("more", Counting(2, 2)), "Counting does not say pure_forward = True"),
    "patched module": (lambda it: vars(first_linear(it)).update(forward=len), "forward pass of Linear is another one"),
    "patched learner": (lambda it: setattr(it, "forward", len), "the learner's forward is another one"),
    "criterion": (lambda it: replace_criterion(it, lambda *_: 0.0), "does not say pure_forward = True"),
    "optimizer": (lambda it: it.optimizer.register_step_post_hook(lambda *_: None), "the optimizer has a hook"),
    "patched optimizer": (lambda it: setattr(it.optimizer, "step", lambda: None), "the optimizer's step is another"),
}


@pytest.mark.parametrize("name", ACTS)
def test_what_acts_unseen_is_found(name: str) -> None:
    learner = learner_of("strategy=packnet", "optimizer.momentum=0.9")
    assert unseen(learner) is None
    act, words = ACTS[name]
    act(learner)
    assert words in str(unseen(learner))


def test_a_module_can_say_that_it_is_pure() -> None:
    learner = learner_of("strategy=naive")
    learner.model.add_module("more", Saying(2, 2))
    assert unseen(learner) is None


class Between(SupervisedPlugin):
    """Changes something between two epochs of a task."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.change = change

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        if strategy.clock.train_exp_epochs == 1:
            self.change(strategy)


def freeze(learner: Any) -> None:
    next(learner.model.parameters()).requires_grad_(False)


def decay(learner: Any) -> None:
    learner.optimizer.param_groups[0]["weight_decay"] = 0.5


def stop_momentum(learner: Any) -> None:
    for group in learner.optimizer.param_groups:
        group["momentum"] = 0.0


@pytest.mark.parametrize("change", [freeze, decay, stop_momentum])
def test_what_changes_between_epochs_is_seen(change: Callable[[Any], None]) -> None:
    words = ("strategy=naive", HIDDEN, "optimizer.momentum=0.9", "optimizer.lr=0.05")

    def add(learner: Any) -> None:
        learner.plugins.append(Between(change))

    alone, together = (train((0, 1), *words, together=way, change=add) for way in (False, True))
    for one, other in zip(alone, together, strict=True):
        assert_same(one.state, other.state, 1e-4)
        assert other.together == len(other.epochs)


def test_another_word_for_recording_is_refused() -> None:
    learner = learner_of("strategy=naive")
    for word in ("maybe", None, False):
        with pytest.raises(ConfigurationError, match=r"train.cuda_graphs must be one of auto, true, false"):
            Graphs(learner, word)  # type: ignore[arg-type]


def test_a_rate_that_a_plugin_sets_is_seen() -> None:
    """Options of the optimizer are compared before each step that is replayed."""
    learner = learner_of("strategy=naive")
    graphs = learner._graphs
    learner.dataloader = SimpleNamespace()
    before = graphs.key([])
    learner.optimizer.param_groups[0]["lr"] = 0.123
    assert graphs.key([]) != before
