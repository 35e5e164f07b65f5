"""Training that ends, however it ends, is followed by the choice of the mask, and by retraining."""

import copy
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EarlyStoppingPlugin, EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from cl_powerprop.plugins import EPNPlugin, HATPlugin, PackNetPlugin, SupSupPlugin, WSNPlugin
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.sparsity import select_task
from cl_powerprop.training.benchmark import in_memory
from cl_powerprop.training.fast import FastSupervisedTemplate

from .benchmarks import LogitsOf, conv_net, dense_net, make_benchmark, make_strategy

pytestmark = pytest.mark.slow

TASKS, EPOCHS = 2, 8
METHODS = {
    "packnet": lambda **options: PackNetPlugin(0.3, **options),
    "epn": lambda **options: EPNPlugin(gamma=0.9, sparsities=[0.8, 0.6, 0.4], **options),
}
LEARNED = {
    "wsn": lambda: WSNPlugin(density=0.3, score_lr=5.0),
    "supsup": lambda: SupSupPlugin(density=0.3, score_lr=5.0),
    "hat": lambda: HATPlugin(s_max=50.0, gate_lr=5.0),
    "scores": lambda: EPNPlugin(gamma=0.9, sparsities=[0.8, 0.5], criterion="scores", score_lr=5.0),
    "scored": lambda: EPNPlugin(gamma=0.9, sparsities=[0.8, 0.5], train_through="scored", score_lr=500.0),
}
TEMPLATES = {"stock": SupervisedTemplate, "fast": FastSupervisedTemplate}


class Stop(SupervisedPlugin):
    """Stops once in each task, in its third epoch of training or so, at a chosen event."""

    def __init__(self, event: str) -> None:
        super().__init__()
        self.event, self.stopped = event, False
        setattr(self, event, self._maybe_stop)

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        self.stopped = False

    def _maybe_stop(self, strategy: Any, **_: Any) -> None:
        if strategy.clock.train_exp_epochs == 2 and not self.stopped:
            self.stopped = True
            strategy.stop_training()


class Epochs(SupervisedPlugin):
    """Counts epochs before and after the mask is chosen."""

    def __init__(self, masking: MaskingPlugin) -> None:
        super().__init__()
        self.masking, self.seen = masking, []

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        self.seen.append([0, 0])

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        if strategy.clock.train_epoch_iterations == 0:
            self.seen[-1][self.masking.mask_chosen] += 1


def check(strategy: Any, plugin: MaskingPlugin, seen: LogitsOf, benchmark: Any) -> None:
    """Each task has a mask that leaves weights to the next, and keeps its logits to the bit."""
    at_its_end: dict[int, list[float]] = {}
    for experience in benchmark.train_stream:
        strategy.train(experience, num_workers=0)
        task = experience.task_label
        strategy.eval(benchmark.test_stream)
        at_its_end[task] = seen.logits[task]
        masked = [row for row in plugin.capacity if row.kind == "masked"]
        search = plugin.last_search()
        if search is None:
            assert all(row.newly_frozen == pytest.approx(0.3 * row.weights, abs=1) for row in masked)
        else:
            assert search["task"] == plugin.allocator.tasks - 1
            assert sum(row.kept for row in masked) < sum(row.weights for row in masked) or search["exhausted"]
        assert {label: seen.logits[label] for label in at_its_end} == at_its_end


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("retrain_epochs", [0, 3])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "event", ["before_training_epoch", "after_training_epoch", "before_training_iteration", "after_update"]
)
def test_a_stop_ends_training_and_retraining_follows(
    template: str, method: str, retrain_epochs: int, first: bool, event: str
) -> None:
    plugin, seen, stop = METHODS[method](retrain_epochs=retrain_epochs), LogitsOf(), Stop(event)
    epochs = Epochs(plugin)
    plugins = [epochs, stop, plugin, seen] if first else [epochs, plugin, stop, seen]
    strategy = make_strategy(conv_net(), plugins, kind=TEMPLATES[template], epochs=EPOCHS)
    check(strategy, plugin, seen, make_benchmark(TASKS))
    trained = 2 if event == "before_training_epoch" else 3
    assert epochs.seen == [[trained, retrain_epochs]] * TASKS


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("first", [True, False])
def test_a_stop_in_the_last_epoch_of_training_is_no_stop_of_retraining(template: str, first: bool) -> None:
    """Whether the plugin that stops comes before the masking plugin or after it."""
    plugin, stop = METHODS["packnet"](retrain_epochs=2), Stop("after_training_epoch")
    epochs = Epochs(plugin)
    plugins = [epochs, stop, plugin] if first else [epochs, plugin, stop]
    strategy = make_strategy(conv_net(), plugins, kind=TEMPLATES[template], epochs=5)
    strategy.train(make_benchmark(1).train_stream[0])
    assert epochs.seen == [[3, 2]]


def test_a_plugin_that_is_added_between_tasks_may_stop_too() -> None:
    plugin, benchmark = METHODS["packnet"](retrain_epochs=2), make_benchmark(TASKS)
    epochs = Epochs(plugin)
    strategy = make_strategy(conv_net(), [plugin, epochs], epochs=EPOCHS)
    strategy.train(benchmark.train_stream[0])
    strategy.plugins.append(Stop("before_training_epoch"))
    strategy.train(benchmark.train_stream[1])
    assert epochs.seen == [[6, 2], [2, 2]]
    assert plugin.messages == []


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_before_the_first_epoch(method: str) -> None:
    class Never(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            strategy.stop_training()

    plugin = METHODS[method](retrain_epochs=2)
    epochs = Epochs(plugin)
    strategy = make_strategy(conv_net(), [plugin, Never(), epochs], epochs=EPOCHS)
    for experience in make_benchmark(TASKS).train_stream:
        strategy.train(experience)
    assert plugin.allocator.tasks == TASKS
    assert plugin.allocator.capacity_used < 1.0
    assert epochs.seen == [[0, 1]] * TASKS  # the one that the mask was chosen before, until it is stopped again


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_stop_in_retraining_ends_the_task(template: str) -> None:
    class StopRetraining(SupervisedPlugin):
        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            if plugin.mask_chosen and strategy.clock.train_exp_epochs == 5:
                strategy.stop_training()

    plugin = METHODS["packnet"](retrain_epochs=4)
    epochs = Epochs(plugin)
    strategy = make_strategy(conv_net(), [plugin, epochs, StopRetraining()], kind=TEMPLATES[template], epochs=EPOCHS)
    benchmark = make_benchmark(3)
    strategy.train(benchmark.train_stream)  # in one call, after which a stop must not reach the next task
    assert epochs.seen == [[4, 2]] * 3
    assert plugin.allocator.tasks == 3


def test_retraining_that_is_stopped_before_its_first_step_still_fits_batch_norm_to_the_mask() -> None:
    class StopRetraining(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            if plugin.mask_chosen:
                strategy.stop_training()

    plugin, benchmark = METHODS["packnet"](retrain_epochs=3), make_benchmark(1)
    strategy = make_strategy(conv_net(), [plugin, StopRetraining()], epochs=6)
    strategy.train(benchmark.train_stream[0])
    # The mean over the data through the mask, not the running mean over training without it.
    select_task(strategy.model, 0)
    weight, bias = strategy.model[0].weight, strategy.model[0].bias
    images = torch.stack([sample[0] for sample in benchmark.train_stream[0].dataset])
    expected = torch.nn.functional.conv2d(images, weight, bias).mean((0, 2, 3))  # all in one batch
    torch.testing.assert_close(strategy.model[1].running_mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["epoch", "iteration"])
@pytest.mark.parametrize("first", [True, False])
def test_avalanches_early_stopping(template: str, method: str, mode: str, first: bool) -> None:
    """It stops training and, apart from that, retraining; the state it goes back to keeps the mask."""
    stopper = EarlyStoppingPlugin(1 if mode == "epoch" else 4, "test_stream", margin=1.0, peval_mode=mode)
    plugin, seen = METHODS[method](retrain_epochs=4), LogitsOf()
    epochs = Epochs(plugin)
    plugins = [epochs, stopper, plugin, seen] if first else [epochs, plugin, stopper, seen]
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])
    strategy = make_strategy(
        dense_net(), plugins, kind=TEMPLATES[template], epochs=12, eval_every=1, peval_mode=mode, evaluator=evaluator
    )
    benchmark, at_its_end = make_benchmark(TASKS), {}
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        strategy.eval(benchmark.test_stream)
        at_its_end[experience.task_label] = seen.logits[experience.task_label]
        assert {label: seen.logits[label] for label in at_its_end} == at_its_end
        assert all(0 < row.newly_frozen < row.weights for row in plugin.capacity if row.kind == "masked")
    # No accuracy improves by the margin, so patience runs out as soon as it can, in training and in retraining.
    assert all(trained + retrained < 12 for trained, retrained in epochs.seen)
    assert all(1 <= retrained <= 3 for _, retrained in epochs.seen)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("mode", ["epoch", "iteration"])
@pytest.mark.parametrize("method", LEARNED)
def test_early_stopping_goes_back_to_the_masks_of_the_best_network(template: str, mode: str, method: str) -> None:
    plugin = LEARNED[method]()

    class Before(SupervisedPlugin):
        """Keeps the learned values before each moment at which early stopping may act, and after it went back."""

        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[int, dict[str, Any]] = {}
            self.back: dict[str, Any] = {}

        def _values(self) -> dict[str, Any]:
            return {name: value.detach().clone() for name, value in plugin.learned.parameters.items()}

        def _look(self, strategy: Any) -> None:
            self.seen.setdefault(stopper._get_strategy_counter(strategy), self._values())

        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            if mode == "epoch":
                self._look(strategy)

        def before_training_iteration(self, strategy: Any, **_: Any) -> None:
            if mode == "iteration":
                self._look(strategy)

        def before_forward(self, strategy: Any, **_: Any) -> None:
            if strategy._stop_training:  # Avalanche still makes the step before which it is stopped
                self.back = self._values()

        def after_training_exp(self, strategy: Any, **_: Any) -> None:
            if mode == "epoch":
                self.back = self._values()

    before, stopper = Before(), EarlyStoppingPlugin(1 if mode == "epoch" else 3, "test_stream", peval_mode=mode)
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 12, bias=False), nn.ReLU(), nn.Linear(12, 3, bias=False))
    strategy = make_strategy(
        *(model, [before, plugin, stopper]),
        kind=TEMPLATES[template],
        epochs=40,
        eval_every=1,
        peval_mode=mode,
        evaluator=evaluator,
    )
    benchmark = make_benchmark(TASKS)
    for task, experience in enumerate(benchmark.train_stream):
        before.seen.clear()
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        assert strategy.clock.train_exp_epochs < 40, "it was stopped"
        if method == "scored" and task == 0:
            continue  # has no scores
        best, last = before.seen[stopper.best_step], before.seen[max(before.seen)]
        assert any(not torch.equal(last[name], value) for name, value in best.items()), "there is something to undo"
        assert before.back.keys() == best.keys()
        assert all(torch.equal(best[name], value) for name, value in before.back.items())


def test_early_stopping_never_goes_back_to_before_the_mask() -> None:
    """A network that retraining makes better is not replaced by the one without a mask, which was best of all."""
    stopper = EarlyStoppingPlugin(2, "test_stream")
    plugin = PackNetPlugin(0.1, retrain_epochs=6)
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])
    strategy = make_strategy(dense_net(), [plugin, stopper], epochs=30, eval_every=1, evaluator=evaluator)

    class Chosen(SupervisedPlugin):
        def retraining_begins(self, strategy: Any, **_: Any) -> None:
            self.phi = copy.deepcopy({name: plugin.allocator.phi(name) for name in plugin.allocator.layers})

    chosen = Chosen()
    strategy.plugins.insert(0, chosen)
    benchmark = make_benchmark(1)
    strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.test_stream])
    for name, phi in chosen.phi.items():
        mask, now = plugin.allocator.weights[name].mask_of(0), plugin.allocator.phi(name)
        assert (now[mask] != phi[mask]).float().mean() > 0.5


@pytest.mark.parametrize("criterion", ["saliency", "both"])
@pytest.mark.parametrize("event", ["before_training_epoch", "after_training_epoch"])
@pytest.mark.parametrize("epochs", [8, 3])  # 3: the stop comes just before the epoch whose saliencies would be summed
def test_saliencies_are_there_after_an_early_stop(criterion: str, event: str, epochs: int) -> None:
    benchmark = make_benchmark(TASKS)
    plugin, seen = EPNPlugin(gamma=0.9, sparsities=[0.8, 0.6, 0.4], criterion=criterion), LogitsOf()
    strategy = make_strategy(dense_net(), [Stop(event), plugin, seen], epochs=epochs)
    check(strategy, plugin, seen, benchmark)
    ranked: list[torch.Tensor] = []

    class Watch(EPNPlugin):
        def _candidates(self) -> Any:
            ranked.extend(total.clone() for total in self._saliencies.sums.values())
            return super()._candidates()

    plugin = Watch(gamma=0.9, sparsities=[0.8], criterion=criterion)
    make_strategy(dense_net(), [Stop(event), plugin], epochs=epochs).train(benchmark.train_stream[0])
    assert ranked
    assert all(bool((total > 0).float().mean() > 0.5) for total in ranked)


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_task_can_be_learned_again(method: str) -> None:
    class Interrupt(SupervisedPlugin):
        once = True

        def after_training_iteration(self, strategy: Any, **_: Any) -> None:
            if self.once and strategy.experience.task_label == 1 and strategy.clock.train_exp_epochs == 1:
                self.once = False
                raise KeyboardInterrupt

    plugin, seen, benchmark = METHODS[method](retrain_epochs=1), LogitsOf(), make_benchmark(3)
    strategy = make_strategy(conv_net(), [plugin, seen, Interrupt()], epochs=4)
    strategy.train(benchmark.train_stream[0])
    with pytest.raises(KeyboardInterrupt):
        strategy.train(benchmark.train_stream[1])
    strategy.eval(benchmark.test_stream)
    first = seen.logits[0]
    for experience in benchmark.train_stream[1:]:
        strategy.train(experience)
    strategy.eval(benchmark.test_stream)
    assert plugin.allocator.labels == [0, 1, 2]
    assert seen.logits[0] == first


def test_evaluation_within_changes_no_bit_of_a_task_that_is_stopped() -> None:
    states = []
    for every in (-1, 1):
        plugin, benchmark = METHODS["epn"](retrain_epochs=2), in_memory(make_benchmark(TASKS))
        options = {"kind": FastSupervisedTemplate, "epochs": EPOCHS, "eval_every": every}
        strategy = make_strategy(conv_net(), [plugin, Stop("before_training_epoch")], **options)
        for experience in benchmark.train_stream:
            strategy.train(experience, eval_streams=[benchmark.test_stream])
        states.append({name: str(value.tolist()) for name, value in strategy.model.state_dict().items()})
    assert states[0] == states[1]


def test_a_run_records_the_epochs_that_were_trained(tmp_path: Any) -> None:
    from cl_powerprop import Parts, Results, learn

    plugin = METHODS["packnet"](retrain_epochs=3)
    strategy = make_strategy(dense_net(), [plugin, Stop("before_training_epoch")], epochs=EPOCHS)
    parts = Parts(make_benchmark(TASKS), strategy)
    learn(parts, Results.open(tmp_path / "run", parts, benchmark="mine"))
    rows = [line.split(",") for line in (tmp_path / "run" / "curves.csv").read_text().splitlines()]
    epoch, split = rows[0].index("epoch"), rows[0].index("split")
    assert {row[epoch] for row in rows[1:] if row[split] == "test"} == {"5"}
