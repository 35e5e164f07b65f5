"""When checkpoints are written, and what goes on within an epoch."""

import copy
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cl_powerprop.checkpointing import reach_of
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.interrupts import Interrupted, deferred, listening
from cl_powerprop.registry import parts
from cl_powerprop.sections import CheckpointConfig
from cl_powerprop.strategies.base import Strategy
from cl_powerprop.training.augment import Augmentation
from cl_powerprop.training.benchmark import TensorSamples
from cl_powerprop.training.checkpoints import Checkpoints, Reach
from cl_powerprop.training.loaders import TensorLoader
from cl_powerprop.training.meters import Measured, TrainingMeter
from cl_powerprop.training.task_state import fitting


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


@pytest.mark.parametrize(
    ("said", "reach"),
    [
        ((), Reach.NOWHERE),
        (("resumable",), Reach.TASKS),
        (("resumable", "resumable_within_tasks"), Reach.EPOCHS),
        (("resumable", "resumable_within_tasks", "resumable_anywhere"), Reach.ANYWHERE),
        (("resumable_anywhere",), Reach.NOWHERE),
        (("resumable", "resumable_anywhere"), Reach.TASKS),
    ],
)
def test_a_strategy_says_where_its_runs_can_go_on(said: tuple[str, ...], reach: Reach) -> None:
    strategy = Strategy()
    for name in said:
        setattr(strategy, name, True)
    assert reach_of(strategy) == reach


def test_every_strategy_of_ours_can_go_on_anywhere() -> None:
    for part in parts("strategy").values():
        if part.is_ours:
            assert part.make.resumable_anywhere, part.name


@pytest.mark.parametrize("first", [0, 1, 3, 4])
def test_a_loader_that_begins_within_an_epoch_gives_the_batches_that_are_left(first: int) -> None:
    """They are those of the whole epoch, with the same random changes, and so are those of the next epoch."""
    samples = TensorSamples(torch.rand(17, 1, 4, 4), torch.arange(17))
    change = Augmentation(shift=1.0)

    def loader() -> TensorLoader:
        return TensorLoader(samples, 0, 5, torch.Generator().manual_seed(1), change, seed=2)

    whole = loader()
    expected = list(whole)[first:]
    following = list(whole)
    resumed, other = loader(), loader()
    for _ in zip(range(first), other, strict=False):  # what another process did before it ended
        pass
    resumed.first = first
    resumed.generators["transform"].set_state(other.generators["transform"].get_state())
    for given, those in ((list(resumed), expected), (list(resumed), following)):
        assert len(given) == len(those)
        assert all(
            torch.equal(one, two) for pair in zip(given, those, strict=True) for one, two in zip(*pair, strict=True)
        )


def test_sums_of_an_epoch_go_on_to_the_bit() -> None:
    """Also where some batches wait to be summed, and others do not."""
    draws = torch.Generator().manual_seed(0)
    batches = [
        SimpleNamespace(
            loss=torch.rand((), generator=draws),
            mb_output=torch.rand(900, 10, generator=draws),
            mb_y=torch.randint(10, (900,), generator=draws),
        )
        for _ in range(70)
    ]
    whole = TrainingMeter(lambda *_: None)
    for batch in batches:
        whole.after_training_iteration(batch)
    for cut in (0, 1, 29, 30, 69):  # 2**18 outputs are those of 29 batches and some
        before, after = TrainingMeter(lambda *_: None), TrainingMeter(lambda *_: None)
        for batch in batches[:cut]:
            before.after_training_iteration(batch)
        after.load_task_progress(before.task_progress())
        for batch in batches[cut:]:
            after.after_training_iteration(batch)
        assert after._sums.measured() == replica(whole)


def replica(meter: TrainingMeter) -> Measured:
    """What a meter has measured, which may be asked only once."""
    return copy.deepcopy(meter)._sums.measured()


def test_sums_with_labels_that_are_no_classes_are_refused() -> None:
    state = {"samples": 2, "classes": 3, "loss": torch.tensor(0.0), "correct": torch.tensor(0)}
    with pytest.raises(RunFolderError, match="the checkpoint does not fit its run"), fitting():
        TrainingMeter(lambda *_: None).load_task_progress(state | {"labels": torch.tensor([0, 10**12])})
