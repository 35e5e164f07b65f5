"""The plugins in stock Avalanche: a user's own model, optimizer, plugins, metrics and loggers."""

import io
import math
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import InteractiveLogger, TextLogger
from avalanche.models import MTSimpleMLP
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.plugins import EPNPlugin, PackNetPlugin, WSNPlugin
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.sparsity import ThetaSpaceStep, powerpropagate

from ..devices import device
from .benchmarks import CLASSES, OPTIMIZERS, LogitsOf, conv_net, dense_net, make_benchmark, make_strategy, rows_net

pytestmark = [pytest.mark.slow, pytest.mark.cuda]

TASKS = 3
METHODS = {
    "packnet": lambda **options: PackNetPlugin(0.3, **options),
    "epn": lambda **options: EPNPlugin(gamma=0.9, sparsities=[0.8, 0.6, 0.4], **options),
    "wsn": lambda **options: WSNPlugin(0.5, score_lr=5.0, **options),
}
MODELS = {
    "conv_net": conv_net,
    "multi_head": lambda: MTSimpleMLP(input_size=16, hidden_size=12).to(device()),
    "lstm": lambda: rows_net("lstm"),
    "transformer": lambda: rows_net("transformer"),
}
MASKED = {"conv_net": 2, "multi_head": 1, "lstm": 3, "transformer": 6}  # weights with masks


class Counter(SupervisedPlugin):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        self.steps += 1


def train_and_check(strategy: SupervisedTemplate, benchmark: Any, seen: LogitsOf) -> list[dict[str, float]]:
    """Train on every task, evaluate on all of them each time, and compare the logits of learned tasks to the bit."""
    at_its_end: dict[int, list[float]] = {}
    results = []
    for experience in benchmark.train_stream:
        strategy.train(experience, num_workers=0)
        results.append(dict(strategy.eval(benchmark.test_stream)))
        assert list(seen.logits) == [test.task_label for test in benchmark.test_stream]
        at_its_end[experience.task_label] = seen.logits[experience.task_label]
        for task, logits in at_its_end.items():
            assert len(logits) == 40 * CLASSES
            assert seen.logits[task] == logits
            assert all(map(math.isfinite, logits))
    return results


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("alpha", "unmasked"), [(1.0, "frozen"), (2.0, "per_task")])
def test_nothing_is_forgotten(method: str, model: str, optimizer: str, alpha: float, unmasked: str) -> None:
    benchmark, network = make_benchmark(TASKS), MODELS[model]()
    chosen = OPTIMIZERS[optimizer](network.parameters())
    if alpha != 1.0:
        powerpropagate(network, alpha, exclude=(type(network.classifier),) if model == "multi_head" else ())
        if optimizer == "adamw":
            ThetaSpaceStep(chosen, network)
    plugin = METHODS[method](retrain_epochs=1, unmasked=unmasked)
    counter, seen, output = Counter(), LogitsOf(), io.StringIO()
    evaluator = EvaluationPlugin(accuracy_metrics(epoch=True, experience=True), loggers=[TextLogger(output)])
    strategy = make_strategy(network, [counter, plugin, seen], chosen, epochs=6, evaluator=evaluator)
    results = train_and_check(strategy, benchmark, seen)
    own = [f"Top1_Acc_Exp/eval_phase/test_stream/Task{k:03d}/Exp{k:03d}" for k in range(TASKS)]
    for task in range(TASKS):
        assert len({result[own[task]] for result in results[task:]}) == 1
    assert results[0][own[0]] > (0.5 if model == "lstm" else 0.6)  # chance is a third
    samples = 58 if method == "epn" else 64  # EPN holds a tenth out
    assert counter.steps == TASKS * 6 * math.ceil(samples / 16)
    assert "Top1_Acc_Exp/eval_phase/test_stream/Task002/Exp002" in output.getvalue()
    masked = [row for row in plugin.allocator.history if row.kind == "masked"]
    assert len(masked) == TASKS * MASKED[model]
    assert all(row.kept == row.newly_frozen + row.reused for row in masked)


@pytest.mark.parametrize("method", METHODS)
def test_in_naive_with_the_interactive_logger(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark, seen = make_benchmark(2), LogitsOf()
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[InteractiveLogger()])
    strategy = make_strategy(conv_net(), [METHODS[method](), seen], kind=Naive, evaluator=evaluator)
    train_and_check(strategy, benchmark, seen)
    assert "Top1_Acc_Stream/eval_phase/test_stream" in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("eval_every", "mode"), [(1, "epoch"), (0, "epoch"), (2, "iteration")])
@pytest.mark.parametrize("retrain_epochs", [0, 2])
def test_evaluation_while_training_disturbs_nothing(
    method: str, eval_every: int, mode: str, retrain_epochs: int
) -> None:
    results = []
    for every in (-1, eval_every):
        benchmark, network, evaluations = make_benchmark(2, count=32), conv_net(), []
        powerpropagate(network, 2.0)

        class Watch(SupervisedPlugin):
            def before_eval(self, strategy: Any, evaluations: list[int] = evaluations, **_: Any) -> None:
                evaluations.append(1)

        plugin = METHODS[method](retrain_epochs=retrain_epochs)
        strategy = make_strategy(network, [plugin, Watch()], epochs=4, eval_every=every, peval_mode=mode)
        for experience in benchmark.train_stream:
            strategy.train(experience, eval_streams=[benchmark.test_stream], shuffle=False)
        # Strings, so that nan would equal nan
        results.append({name: str(value.tolist()) for name, value in network.state_dict().items()})
        assert bool(evaluations) == (every != -1)
    assert results[0] == results[1]


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_while_training_with_heads_of_unseen_tasks(method: str) -> None:
    benchmark, seen = make_benchmark(TASKS), LogitsOf()
    strategy = make_strategy(MODELS["multi_head"](), [METHODS[method](), seen], eval_every=1)
    at_its_end = {}
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[benchmark.test_stream])
        strategy.eval(benchmark.test_stream)
        at_its_end[experience.task_label] = seen.logits[experience.task_label]
        for task, logits in at_its_end.items():
            assert seen.logits[task] == logits


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_evaluation_before_any_training(method: str, model: str) -> None:
    """The untrained network's accuracy is what forward transfer is measured against."""
    benchmark, seen = make_benchmark(2), LogitsOf()
    strategy = make_strategy(MODELS[model](), [METHODS[method](), seen])
    strategy.eval(benchmark.test_stream)
    assert sorted(seen.logits) == [0, 1]
    train_and_check(strategy, benchmark, seen)


@pytest.mark.parametrize("method", METHODS)
def test_labels_need_not_count_from_zero(method: str) -> None:
    benchmark, seen = make_benchmark(TASKS, labels=[7, 2, 5]), LogitsOf()
    train_and_check(make_strategy(conv_net(), [METHODS[method](), seen]), benchmark, seen)


@pytest.mark.parametrize("method", METHODS)
def test_all_tasks_in_one_call(method: str) -> None:
    benchmark, plugin = make_benchmark(TASKS), METHODS[method]()
    make_strategy(conv_net(), [plugin]).train(benchmark.train_stream)
    assert plugin.allocator.tasks == TASKS


@pytest.mark.parametrize("method", METHODS)
def test_a_repeated_label_is_refused(method: str) -> None:
    benchmark = make_benchmark(2, labels=[0, 0])
    strategy = make_strategy(conv_net(), [METHODS[method]()])
    strategy.train(benchmark.train_stream[0])
    with pytest.raises(ConfigurationError, match="task label 0 came twice"):
        strategy.train(benchmark.train_stream[1])


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_replaced_between_tasks_is_refused(method: str) -> None:
    """Avalanche's IncrementalClassifier does this for new classes; the weights of earlier tasks would be lost."""
    benchmark, network = make_benchmark(2), dense_net()
    strategy = make_strategy(network, [METHODS[method]()])
    strategy.train(benchmark.train_stream[0])
    network[3] = nn.Linear(12, CLASSES).to(device())
    with pytest.raises(ConfigurationError, match="layer 3 was replaced since masking began"):
        strategy.train(benchmark.train_stream[1])


@pytest.mark.parametrize("method", METHODS)
def test_statistics_of_norm_layers_are_counted_as_dense(method: str) -> None:
    benchmark, plugin = make_benchmark(2), METHODS[method](unmasked="per_task")
    strategy = make_strategy(conv_net(), [plugin])
    for experience in benchmark.train_stream:
        strategy.train(experience)
        dense = {row.layer: row.weights for row in plugin.capacity if row.kind == "dense"}
        assert dense == {
            **{"0.bias": 6, "4.bias": CLASSES, "1.weight": 6, "1.bias": 6},
            **{"1.running_mean": 6, "1.running_var": 6},
        }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("retrain_epochs", [3, 4])
def test_retraining_must_leave_epochs_to_train(method: str, retrain_epochs: int) -> None:
    strategy = make_strategy(conv_net(), [METHODS[method](retrain_epochs=retrain_epochs)], epochs=3)
    with pytest.raises(ConfigurationError, match="leaves no epoch"):
        strategy.train(make_benchmark(1).train_stream[0])


@pytest.mark.parametrize("method", METHODS)
def test_negative_retraining_is_refused(method: str) -> None:
    with pytest.raises(ConfigurationError, match="retrain_epochs"):
        METHODS[method](retrain_epochs=-1)


@pytest.mark.parametrize("method", METHODS)
def test_retraining_moves_the_new_weights_of_the_mask_alone(method: str) -> None:
    class Snapshots(SupervisedPlugin):
        """Comes after the masking plugin, so that it keeps the network just after the mask is chosen."""

        def __init__(self, masking: MaskingPlugin) -> None:
            super().__init__()
            self.masking, self.chosen = masking, {}

        def after_training_epoch(self, strategy: Any, **_: Any) -> None:
            if strategy.clock.train_exp_epochs + 1 == 3:
                allocator = self.masking.allocator
                self.chosen = {
                    name: (weight.visible.clone(), weight.frozen, allocator.phi(name).detach().clone())
                    for name, weight in allocator.weights.items()
                }

    plugin = METHODS[method](retrain_epochs=2)
    snapshots = Snapshots(plugin)
    strategy = make_strategy(dense_net(), [plugin, snapshots], epochs=5)
    for experience in make_benchmark(2).train_stream:
        strategy.train(experience)
        for name, (mask, frozen, phi) in snapshots.chosen.items():
            now = plugin.allocator.phi(name)
            new = mask & ~frozen
            assert torch.equal(plugin.allocator.weights[name].mask_of(plugin.allocator.tasks - 1), mask)
            assert torch.equal(now[frozen], phi[frozen])
            assert (now[new] != phi[new]).float().mean() > 0.5


def test_a_tied_model_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3))
    network[2].weight = network[1].weight
    with pytest.raises(ConfigurationError, match="share one weight"):
        make_strategy(network, [PackNetPlugin(0.5)]).train(make_benchmark(1).train_stream[0])
