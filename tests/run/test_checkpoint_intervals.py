"""When checkpoints are written: by epochs, seconds and share of the time, and when a signal asks for one."""

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.interrupts import Interrupted, deferred, listening
from cl_powerprop.sections import CheckpointConfig
from cl_powerprop.training.checkpoints import Checkpoints, Reach


class Learner:
    """What the plugin asks of a learner: one that trains nothing."""

    device = torch.device("cpu")
    _stop_training = False

    def __init__(self, epochs: int = 1000) -> None:
        self.train_epochs = epochs
        self.clock = SimpleNamespace(train_exp_epochs=0, train_exp_iterations=0, train_epoch_iterations=0)
        self.dataloader = SimpleNamespace(generators={}, first=0, drawn_by_batch=())
        self.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
        self.plugins: list[Any] = []


class Clock:
    """A clock that stands still, and a plugin whose checkpoints take a time."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = self.start = 100.0
        self.written: list[float] = []
        self.cost = 0.0
        patch.setattr(time, "perf_counter", lambda: self.now)

    def write(self, task: dict[str, Any]) -> None:
        self.written.append(self.now)
        self.now += self.cost


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def train(plugin: Checkpoints, clock: Clock, epochs: int, steps: int, seconds: float, task_epochs: int = 1000) -> None:
    """Let a plugin see epochs of some steps, each of which takes so many seconds."""
    learner = Learner(task_epochs)
    plugin.before_training_exp(learner)
    for epoch in range(epochs):
        plugin.epoch_begins(learner)
        for _ in range(steps):
            clock.now += seconds
            plugin.after_training_iteration(learner)
        learner.clock.train_exp_epochs = epoch + 1
        plugin.after_training_epoch(learner)
    plugin.after_training_exp(learner)


@pytest.mark.parametrize("cost", [0.001, 0.05, 2.0])
def test_checkpoints_take_at_most_their_share_of_the_time(cost: float, clock: Clock) -> None:
    clock.cost = cost
    train(Checkpoints(clock.write, Reach.ANYWHERE, max_share=0.02), clock, 999, 10, 0.1)
    spent, passed = cost * len(clock.written), clock.now - clock.start
    assert 0 < spent <= 0.02 * passed + cost  # what the very first one takes is not known before
    assert len(clock.written) > 990 or spent > 0.015 * passed, "the share is used"


def test_without_a_limit_there_is_one_every_few_epochs(clock: Clock) -> None:
    clock.cost = 50.0
    train(Checkpoints(clock.write, Reach.ANYWHERE, every_epochs=3, max_share=1.0), clock, 10, 4, 1.0)
    assert [round(moment) for moment in clock.written] == [112, 174, 236]


def test_an_interval_in_seconds_ends_within_an_epoch(clock: Clock) -> None:
    plugin = Checkpoints(clock.write, Reach.ANYWHERE, every_epochs=None, every_seconds=2.5, max_share=1.0)
    train(plugin, clock, 2, 5, 1.0)
    assert clock.written == [103.0, 106.0, 109.0]


def test_a_run_that_can_go_on_between_epochs_only(clock: Clock) -> None:
    plugin = Checkpoints(clock.write, Reach.EPOCHS, every_epochs=None, every_seconds=2.5, max_share=1.0)
    train(plugin, clock, 3, 5, 1.0, task_epochs=3)
    assert clock.written == [105.0, 110.0], "none at the end of the last one"
    plugin.task_ended()
    assert len(clock.written) == 3


def test_a_loader_that_cannot_skip_batches_is_left_to_finish_its_epoch(clock: Clock) -> None:
    plugin, learner = Checkpoints(clock.write, Reach.ANYWHERE, every_seconds=0.0, every_epochs=None), Learner()
    del learner.dataloader.first
    learner.dataloader.generators = {}
    plugin.before_training_exp(learner)
    plugin.epoch_begins(learner)
    plugin.after_training_iteration(learner)
    assert not clock.written
    plugin.after_training_epoch(learner)
    assert clock.written


@pytest.mark.parametrize(("reach", "written"), [(Reach.ANYWHERE, 1), (Reach.NOWHERE, 0)])
def test_a_signal_is_answered_at_the_next_step(reach: Reach, written: int, clock: Clock) -> None:
    plugin, steps = Checkpoints(clock.write, reach, every_epochs=None, max_share=0.02), []

    def work() -> None:
        with deferred():
            for step in range(3):
                steps.append(step)
                if step == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                plugin.moment()

    with listening(), pytest.raises(Interrupted):
        work()
    assert steps == [0, 1]
    assert len(clock.written) == written


def test_a_signal_while_a_checkpoint_is_written_stops_the_run_after_it(clock: Clock) -> None:
    finished = []

    def write(task: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)
        finished.append(task)

    plugin = Checkpoints(write, Reach.ANYWHERE, every_seconds=0.0, max_share=1.0)
    with listening(), pytest.raises(Interrupted), deferred():
        plugin.moment()
    assert len(finished) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("every_epochs", 0), ("every_seconds", -1.0), ("every_seconds", float("nan"))),
        *(("max_share", 0.0), ("max_share", 1.5), ("max_share", float("nan"))),
    ],
)
def test_an_interval_that_is_none(option: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"checkpoint.{option} must be"):
        CheckpointConfig(**{option: value}).check()  # type: ignore[arg-type]
