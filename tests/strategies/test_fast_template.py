"""The fast template against stock Avalanche: the same batches give the same weights, events and metrics."""

import io
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.logging import TextLogger
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.templates import SupervisedTemplate

from cl_powerprop.plugins import EPNPlugin, PackNetPlugin
from cl_powerprop.sequences.permuted import permuted
from cl_powerprop.tasks import Pixels
from cl_powerprop.training.benchmark import to_avalanche
from cl_powerprop.training.fast import FastSupervisedTemplate

from .benchmarks import conv_net, make_strategy, make_tensors

EVENTS = [
    name
    for name in dir(SupervisedPlugin)
    if name.startswith(("before_", "after_")) and callable(getattr(SupervisedPlugin, name))
]


class Recorder(SupervisedPlugin):
    """Handles every event there is."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []


for _event in EVENTS:
    setattr(Recorder, _event, lambda self, strategy, *_, _event=_event, **__: self.events.append(_event))


class OneEvent(SupervisedPlugin):
    """Handles one event only."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def after_backward(self, strategy: Any, **_: Any) -> None:
        self.losses.append(strategy.loss.item())


def make_sequence(tasks: int) -> Any:
    def pixels(part: str, count: int) -> Pixels:
        images, labels = make_tensors(0, part, count)
        return Pixels((images * 40 + 128).clamp(0, 255).byte(), labels, 0.5, 0.16)

    return to_avalanche(
        permuted(
            pixels("train", 70),
            pixels("test", 40),
            3,
            n_tasks=tasks,
            scenario="task",
            permute_first=False,
            validation=0.2,
            seed=0,
        )
    )


def run(
    kind: type[SupervisedTemplate], plugins: list[SupervisedPlugin], *, shuffle: bool = False, **options: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    benchmark, network = make_sequence(2), conv_net()
    evaluator = EvaluationPlugin(
        accuracy_metrics(minibatch=True, epoch=True, epoch_running=True, experience=True, stream=True),
        loss_metrics(minibatch=True, epoch=True, experience=True),
        loggers=[TextLogger(io.StringIO())],
    )
    strategy = make_strategy(network, plugins, kind=kind, epochs=2, evaluator=evaluator, **options)
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream], shuffle=shuffle)
        strategy.eval(benchmark.test_stream)
    weights = {name: value.tolist() for name, value in network.state_dict().items()}
    return weights, dict(evaluator.get_all_metrics())


@pytest.mark.parametrize("method", ["none", "packnet", "epn"])
@pytest.mark.parametrize("eval_every", [-1, 1])
def test_same_weights_events_and_metrics(method: str, eval_every: int) -> None:
    results = []
    for kind in (SupervisedTemplate, FastSupervisedTemplate):
        recorder, one = Recorder(), OneEvent()
        methods = {"none": [], "packnet": [PackNetPlugin(0.4)], "epn": [EPNPlugin(sparsities=[0.7, 0.3])]}
        weights, metrics = run(kind, [recorder, *methods[method], one], eval_every=eval_every)
        results.append((recorder.events, one.losses, weights, metrics))
    stock, fast = results
    assert len(stock[0]) > 100
    assert fast[0] == stock[0]
    assert len(stock[1]) > 8
    assert fast[1] == stock[1]
    assert fast[2] == stock[2]
    assert stock[3]
    assert fast[3] == stock[3]


def test_order_of_samples_depends_on_the_seed_alone() -> None:
    def weights(seed: int, global_seed: int) -> dict[str, Any]:
        class Disturb(SupervisedPlugin):
            def before_training_exp(self, strategy: Any, **_: Any) -> None:
                torch.manual_seed(global_seed)

        return run(FastSupervisedTemplate, [Disturb()], shuffle=True, seed=seed)[0]

    first = weights(0, 0)
    assert weights(0, 1) == first
    assert weights(1, 0) != first


def test_every_epoch_sees_every_sample_once_in_another_order() -> None:
    class Samples(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[list[tuple[float, ...]]] = []

        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            self.epochs.append([])

        def after_training_iteration(self, strategy: Any, **_: Any) -> None:
            self.epochs[-1] += [
                (*row, label)
                for row, label in zip(strategy.mb_x.flatten(1).tolist(), strategy.mb_y.tolist(), strict=True)
            ]

    fast, stock = Samples(), Samples()
    run(FastSupervisedTemplate, [fast], shuffle=True)
    run(SupervisedTemplate, [stock])
    assert [len(epoch) for epoch in fast.epochs] == [56] * 4
    assert fast.epochs[0] != fast.epochs[1]
    assert [sorted(epoch) for epoch in fast.epochs] == [sorted(epoch) for epoch in stock.epochs]


def test_replay_feeds_its_own_mixture() -> None:
    class Tasks(SupervisedPlugin):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[set[int]] = []

        def before_training_exp(self, strategy: Any, **_: Any) -> None:
            self.seen.append(set())

        def after_training_iteration(self, strategy: Any, **_: Any) -> None:
            self.seen[-1] |= set(strategy.mb_task_id.tolist())

    tasks = Tasks()
    run(FastSupervisedTemplate, [ReplayPlugin(mem_size=30), tasks], shuffle=True)
    assert tasks.seen == [{0}, {0, 1}]


def test_an_optimizer_s_own_zero_grad_is_called() -> None:
    class Counting(torch.optim.SGD):
        resets = 0

        def zero_grad(self, set_to_none: bool = True) -> None:
            type(self).resets += 1
            super().zero_grad(set_to_none)

    network, steps = conv_net(), Counter()
    strategy = make_strategy(
        network, [steps], Counting(network.parameters(), lr=0.1), kind=FastSupervisedTemplate, epochs=1
    )
    strategy.train(make_sequence(1).train_stream[0], eval_streams=[])
    assert Counting.resets == steps.steps == 4


class Counter(SupervisedPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        self.steps += 1
