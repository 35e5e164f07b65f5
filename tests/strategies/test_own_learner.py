"""A learner of one's own: saved, loaded and copied; heads of different widths; what has no mask; two plugins."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import MTSimpleMLP, MultiTaskModule, SimpleMLP, as_multitask
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import JointTraining
from safetensors.torch import save_file
from torch import nn

from cl_powerprop import EPNPlugin, PackNetPlugin, WSNPlugin, load_learner, powerpropagate, save_learner
from cl_powerprop.errors import ConfigurationError, DataError
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.sparsity import MaskAllocator, MaskedWeight

from .benchmarks import CLASSES, LogitsOf, conv_net, dense_net, make_benchmark, make_strategy

pytestmark = pytest.mark.slow

LABELS = [7, 2, 5]
METHODS: dict[str, Callable[..., MaskingPlugin]] = {
    "packnet": lambda **options: PackNetPlugin(0.3, **options),
    "epn": lambda **options: EPNPlugin(gamma=0.9, sparsities=[0.8, 0.6, 0.4], **options),
    "wsn, new scores": lambda **options: WSNPlugin(0.5, score_lr=5.0, reset_scores=True, **options),
    "wsn": lambda **options: WSNPlugin(0.5, score_lr=5.0, **options),
}
MODELS: dict[str, Callable[[], nn.Module]] = {
    "conv_net": conv_net,
    "multi_head": lambda: MTSimpleMLP(input_size=16, hidden_size=12),
}


def learner(model: str = "conv_net", method: str = "epn", alpha: float = 2.0, **options: Any) -> tuple[Any, LogitsOf]:
    torch.manual_seed(0)
    network, seen = MODELS[model](), LogitsOf()
    if alpha != 1.0:
        powerpropagate(network, alpha, exclude=(type(network.classifier),) if model == "multi_head" else ())
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True), loggers=[])
    return make_strategy(network, [METHODS[method](**options), seen], epochs=4, evaluator=evaluator), seen


def logits(strategy: Any, seen: LogitsOf, benchmark: Any, tasks: int) -> dict[int, list[float]]:
    strategy.eval(benchmark.test_stream[:tasks])
    return dict(seen.logits)


def go_on(strategy: Any, benchmark: Any) -> None:
    torch.manual_seed(5)  # stock Avalanche shuffles by the global generator
    strategy.train(benchmark.train_stream[2])


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return make_benchmark(3, labels=LABELS)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("unmasked", ["frozen", "per_task"])
def test_a_learner_goes_on_from_its_file_to_the_bit(
    model: str, method: str, unmasked: str, benchmark: Any, tmp_path: Path
) -> None:
    first, seen = learner(model, method, unmasked=unmasked)
    for experience in benchmark.train_stream[:2]:
        first.train(experience)
    save_learner(first, tmp_path / "learner.safetensors")
    assert sorted(os.listdir(tmp_path)) == ["learner.safetensors"]
    for number in range(10):  # safetensors' own function writes metadata in random order
        save_learner(first, tmp_path / f"{number}.again")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    (tmp_path / "plain").write_text("")
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
    second, seen_second = learner(model, method, unmasked=unmasked)
    learned = benchmark.train_stream[:2] if model == "multi_head" else ()
    load_learner(second, tmp_path / "learner.safetensors", learned)
    expected = logits(first, seen, benchmark, 2)
    assert logits(second, seen_second, benchmark, 2) == expected
    assert second.plugins[0].allocator.labels == LABELS[:2]
    for strategy in (first, second):
        go_on(strategy, benchmark)
    assert logits(second, seen_second, benchmark, 3) == logits(first, seen, benchmark, 3)
    assert {label: seen.logits[label] for label in expected} == expected
    assert second.plugins[0].capacity == first.plugins[0].capacity
    assert second.plugins[0].state_dict().keys() == first.plugins[0].state_dict().keys()


# The scores of WSN, which go on from task to task, are no part of the model.
@pytest.mark.parametrize("method", [name for name in METHODS if name != "wsn"])
def test_a_loaded_state_is_evaluated_through_its_masks(method: str, benchmark: Any) -> None:
    """Without any call of ours: the masks and the labels of their tasks are in the model's state."""
    first, seen = learner(method=method)
    for experience in benchmark.train_stream[:2]:
        first.train(experience)
    expected = logits(first, seen, benchmark, 2)
    second, seen_second = learner(method=method)
    MaskAllocator(second.model)
    second.model.load_state_dict(first.model.state_dict())
    assert logits(second, seen_second, benchmark, 2) == expected
    for strategy in (first, second):
        go_on(strategy, benchmark)
    assert logits(second, seen_second, benchmark, 3) == logits(first, seen, benchmark, 3)


def test_a_state_of_another_alpha_is_refused(benchmark: Any) -> None:
    """The same numbers would stand for other weights."""
    first, _ = learner()
    first.train(benchmark.train_stream[0])
    for other in (1.0, 3.0):
        model = powerpropagate(conv_net(), other)
        MaskAllocator(model)
        with pytest.raises(
            RuntimeError, match=f"0.weight was trained with alpha=2, and this model has alpha={other:g}"
        ):
            model.load_state_dict(first.model.state_dict())


def test_a_state_without_labels_or_alpha_is_loaded() -> None:
    """Version 0.1.0 wrote neither."""
    network = powerpropagate(dense_net(), 2.0)
    allocator = MaskAllocator(network)
    for task in range(2):
        allocator.begin_task(torch.Generator().manual_seed(task))
        allocator.propose({name: weight.owner % 2 == 1 for name, weight in allocator.weights.items()})
        allocator.end_task(label=9 - task)
    state = {name: value for name, value in network.state_dict().items() if not name.endswith(("labels", "alpha"))}
    fresh = powerpropagate(dense_net(), 2.0)
    fresh.load_state_dict(state)
    loaded = next(module for module in fresh.modules() if isinstance(module, MaskedWeight))
    assert loaded.labels.tolist() == [0, 1]
    fresh.load_state_dict(network.state_dict())
    assert loaded.labels.tolist() == [9, 8]


def test_what_does_not_fit_the_file_is_named(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "learner.safetensors"
    first, _ = learner("multi_head", unmasked="frozen")
    with pytest.raises(ConfigurationError, match="has learned no task yet"):
        save_learner(first, path)
    for experience in benchmark.train_stream[:2]:
        first.train(experience)
    save_learner(first, path)
    for other, message in (
        (learner("multi_head", "packnet"), "was written with plugin EPNPlugin, and this learner has PackNetPlugin"),
        (learner("multi_head", unmasked="per_task"), "was written with unmasked frozen, .* has per_task"),
        (learner("conv_net"), "does not fit this model: .* Build the model as it was built before"),
        (learner("multi_head"), "pass the experiences that were learned"),
        (learner("multi_head", alpha=3.0), "does not fit this model: .* trained with alpha=2"),
    ):
        experiences = benchmark.train_stream[:2] if "alpha" in message else ()
        with pytest.raises(ConfigurationError, match=message) as raised:
            load_learner(other[0], path, experiences)
        assert "\n" not in str(raised.value)
    plain = make_strategy(conv_net(), [])
    for act in (save_learner, load_learner):
        with pytest.raises(ConfigurationError, match=r"has no masking plugin; .* is enough without masks"):
            act(plain, path)


@pytest.mark.parametrize("content", ["missing", "empty", "text", "folder", "other", "no about", "list"])
def test_a_file_that_is_no_learners_is_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "learner.safetensors"
    metadata = {"no about": {"format": "cl-powerprop learner 1"}, "other": {"format": "pt"}}
    metadata["list"] = metadata["no about"] | {"about": "[1]"}
    if content in metadata:
        save_file({"x": torch.zeros(1)}, path, metadata=metadata[content])
    elif content == "folder":
        path.mkdir()
    elif content != "missing":
        path.write_bytes(b"" if content == "empty" else b"not a tensor file at all")
    with pytest.raises(
        DataError, match=r"learner.safetensors (cannot be read|is damaged|was not written by save_learner)"
    ):
        load_learner(learner()[0], path)


@pytest.mark.parametrize("model", MODELS)
def test_avalanches_checkpoints(model: str, benchmark: Any, tmp_path: Path) -> None:
    """Without the optimizer, which dill no longer can pickle; masking plugins start each task without moments."""
    first, seen = learner(model)
    for experience in benchmark.train_stream[:2]:
        first.train(experience)
    save_checkpoint(first, tmp_path / "checkpoint.pt", exclude=["optimizer"])
    second, _ = learner(model)
    second, trained = maybe_load_checkpoint(second, tmp_path / "checkpoint.pt")
    assert trained == 2
    (seen_second,) = (plugin for plugin in second.plugins if isinstance(plugin, LogitsOf))
    assert logits(second, seen_second, benchmark, 2) == logits(first, seen, benchmark, 2)
    for strategy in (first, second):
        go_on(strategy, benchmark)
    assert logits(second, seen_second, benchmark, 3) == logits(first, seen, benchmark, 3)


def test_a_copied_learner_goes_its_own_way(benchmark: Any) -> None:
    first, seen = learner()
    for experience in benchmark.train_stream[:2]:
        first.train(experience)
    second = copy.deepcopy(first)
    (seen_second,) = (plugin for plugin in second.plugins if isinstance(plugin, LogitsOf))
    expected = logits(first, seen, benchmark, 2)
    go_on(second, benchmark)
    assert logits(first, seen, benchmark, 2) == expected
    assert logits(second, seen_second, benchmark, 2) == expected
    go_on(first, benchmark)
    assert logits(second, seen_second, benchmark, 3) == logits(first, seen, benchmark, 3)


def widening_benchmark() -> Any:
    """Tasks of 2, 3 and 5 classes."""
    streams: dict[str, list[Any]] = {"train": [], "test": []}
    for task, classes in enumerate((2, 3, 5)):
        centres = torch.randn(classes, 1, 4, 4, generator=torch.Generator().manual_seed(task))
        for part, count in (("train", 80), ("test", 60)):
            source = torch.Generator().manual_seed(10 * task + len(part))
            labels = torch.arange(count) % classes
            images = centres[labels] + 0.5 * torch.randn(count, 1, 4, 4, generator=source)
            streams[part].append(_make_taskaware_tensor_classification_dataset(images, labels, task_labels=task))
    benchmark = with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))
    for stream in benchmark.streams.values():
        for experience in stream:
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
    return benchmark


HEADS: dict[str, Callable[[], nn.Module]] = {
    "MTSimpleMLP": lambda: MTSimpleMLP(input_size=16, hidden_size=16),
    "as_multitask": lambda: as_multitask(
        SimpleMLP(num_classes=2, input_size=16, hidden_size=16, drop_rate=0.0), "classifier"
    ),
}


@pytest.mark.parametrize("model", HEADS)
@pytest.mark.parametrize("method", METHODS)
def test_a_wider_head_changes_no_prediction_of_an_earlier_task(model: str, method: str) -> None:
    """Avalanche pads narrow heads with logits of 0, which win over negative ones."""
    benchmark, seen = widening_benchmark(), LogitsOf()
    torch.manual_seed(0)
    network = HEADS[model]()
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True), loggers=[])
    strategy = make_strategy(network, [METHODS[method](), seen], epochs=12, evaluator=evaluator)
    own: list[float] = []
    for task, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        head = network.classifier.classifiers[str(task)].classifier
        with torch.no_grad():
            head.bias -= 8.0  # changes no prediction of this head, and makes its logits negative
        results = strategy.eval(benchmark.test_stream)
        accuracies = [results[f"Top1_Acc_Exp/eval_phase/test_stream/Task{k:03d}/Exp{k:03d}"] for k in range(task + 1)]
        assert accuracies[:task] == own
        own = accuracies
        for earlier in range(task + 1):
            predicted = torch.tensor(seen.logits[earlier]).view(60, -1).argmax(1)
            assert int(predicted.max()) < (2, 3, 5)[earlier]
    assert min(own) > 0.8


class Reader(nn.Module):
    """Embeds pixels as words and reads them."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 6)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        words = (x.flatten(1).sigmoid() * self.embedding.num_embeddings).long()
        return self.classifier(self.lstm(self.embedding(words))[0][:, -1])


@pytest.mark.parametrize(("words", "warned"), [(500, True), (3, False)])
@pytest.mark.parametrize(
    ("unmasked", "fate"), [("frozen", "frozen after the first task"), ("per_task", "kept for each task")]
)
def test_what_masks_do_not_cover_is_told(
    words: int, warned: bool, unmasked: str, fate: str, caplog: pytest.LogCaptureFixture
) -> None:
    plugin, seen, benchmark = PackNetPlugin(0.3, unmasked=unmasked), LogitsOf(), make_benchmark(2)
    strategy = make_strategy(Reader(words), [plugin, seen])
    strategy.train(benchmark.train_stream[0])
    covered = 4 * 8 * 6 + 4 * 8 * 8 + 24
    share = covered / (covered + 6 * words)
    assert plugin.allocator.coverage == pytest.approx(share)
    message = f"masks cover {share:.1%} of the network's weights; embedding.weight: no mask, {fate}"
    assert plugin.messages == ([message] if warned else [])
    assert (message in caplog.text) is warned
    before = logits(strategy, seen, benchmark, 1)
    strategy.train(benchmark.train_stream[1])
    assert logits(strategy, seen, benchmark, 1) == before


def test_two_plugins_that_give_masks_are_refused() -> None:
    strategy = make_strategy(conv_net(), [PackNetPlugin(0.3), EPNPlugin()])
    with pytest.raises(ConfigurationError, match=r"PackNetPlugin and EPNPlugin on one strategy: .* keep one"):
        strategy.train(make_benchmark(1).train_stream[0])


def test_a_plugin_that_moves_to_another_model_is_refused() -> None:
    benchmark, plugin = make_benchmark(2), PackNetPlugin(0.3)
    make_strategy(conv_net(), [plugin]).train(benchmark.train_stream[0])
    with pytest.raises(ConfigurationError, match="has the masks of another model; make a new plugin"):
        make_strategy(conv_net(), [plugin]).train(benchmark.train_stream[1])


def test_pruning_a_masked_layer_is_named_when_the_next_task_begins() -> None:
    benchmark = make_benchmark(2)
    strategy = make_strategy(dense_net(), [PackNetPlugin(0.3)])
    strategy.train(benchmark.train_stream[0])
    nn.utils.parametrize.register_parametrization(strategy.model[1], "weight", nn.Identity())
    with pytest.raises(ConfigurationError, match="layer 1 is parametrised by Identity, which cannot be combined"):
        strategy.train(benchmark.train_stream[1])


class Prompted(MultiTaskModule):
    """Has parameters of each task's own beside shared ones, and a matrix that somebody else parametrised."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = nn.ParameterList(nn.Parameter(torch.zeros(16)) for _ in range(3))
        self.mixing = nn.utils.parametrizations.weight_norm(nn.Embedding(16, 16))
        self.hidden = nn.Linear(16, 12)
        self.output = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor, task_labels: torch.Tensor) -> torch.Tensor:
        prompt = self.prompts[LABELS.index(int(task_labels[0]))]
        return self.output(self.hidden(x.flatten(1) @ self.mixing.weight + prompt).relu())


@pytest.mark.parametrize("how", ["file", "deepcopy", "copy of the model"])
def test_what_is_frozen_and_what_is_not_goes_with_the_learner(how: str, benchmark: Any, tmp_path: Path) -> None:
    """Parameters of later tasks go on learning, and those of earlier ones do not, parametrised or not."""

    def build(model: nn.Module) -> tuple[Any, LogitsOf]:
        seen = LogitsOf()
        evaluator = EvaluationPlugin(accuracy_metrics(experience=True), loggers=[])
        return make_strategy(model, [PackNetPlugin(0.3), seen], epochs=4, evaluator=evaluator), seen

    torch.manual_seed(0)
    first, seen = build(Prompted())
    for experience in benchmark.train_stream[:2]:
        first.train(experience)
    expected = logits(first, seen, benchmark, 2)
    if how == "deepcopy":
        second = copy.deepcopy(first)
        (seen_second,) = (plugin for plugin in second.plugins if isinstance(plugin, LogitsOf))
    elif how == "copy of the model":
        second, seen_second = build(copy.deepcopy(first.model))
    else:
        save_learner(first, tmp_path / "new folder" / "learner.safetensors")
        second, seen_second = build(Prompted())
        load_learner(second, tmp_path / "new folder" / "learner.safetensors")
    for strategy in (first, second):
        go_on(strategy, benchmark)
    assert {label: seen.logits[label] for label in expected} == {label: expected[label] for label in expected}
    after = logits(second, seen_second, benchmark, 3)
    assert after == logits(first, seen, benchmark, 3)
    assert {label: after[label] for label in expected} == expected
    assert all(bool(prompt.any()) for prompt in second.model.prompts)


def test_a_module_that_the_model_uses_twice_is_saved(benchmark: Any, tmp_path: Path) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        shared = nn.Linear(16, 16)
        return nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.Linear(16, CLASSES))

    first = make_strategy(build(), [PackNetPlugin(0.3), seen := LogitsOf()])
    first.train(benchmark.train_stream[0])
    save_learner(first, tmp_path / "learner.safetensors")
    second = make_strategy(build(), [PackNetPlugin(0.3), seen_second := LogitsOf()])
    load_learner(second, tmp_path / "learner.safetensors")
    assert logits(second, seen_second, benchmark, 1) == logits(first, seen, benchmark, 1)


def test_heads_are_called_by_keyword_too() -> None:
    benchmark, (strategy, _) = make_benchmark(1), learner("multi_head")
    strategy.train(benchmark.train_stream[0])
    x, tasks = torch.randn(4, 1, 4, 4), torch.zeros(4, dtype=torch.long)
    model = strategy.model.eval()
    expected = model(x, tasks)
    assert torch.equal(model(x, task_labels=tasks), expected)
    assert torch.equal(model(x=x, task_labels=tasks), expected)
    heads = model.classifier
    features = torch.randn(4, 12)
    assert torch.equal(heads(x=features, task_labels=tasks), heads(features, tasks))


def test_samples_of_several_tasks_at_once_are_refused() -> None:
    strategy = make_strategy(conv_net(), [PackNetPlugin(0.3)], kind=JointTraining)
    with pytest.raises(ConfigurationError, match="samples of one task at a time; this strategy trains tasks 0, 1"):
        strategy.train(make_benchmark(2).train_stream)


def test_a_parametrisation_that_is_added_after_the_last_task_is_named_when_tested(benchmark: Any) -> None:
    strategy, _ = learner()
    strategy.train(benchmark.train_stream[0])
    nn.utils.parametrizations.spectral_norm(strategy.model[0])
    with pytest.raises(ConfigurationError, match="layer 0 is parametrised by _SpectralNorm"):
        strategy.eval(benchmark.test_stream)
