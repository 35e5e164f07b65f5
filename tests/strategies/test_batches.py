"""A lone sample at the end of an epoch joins the batch before it, whatever loads the batches and whatever trains."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from cl_powerprop import EPNPlugin, FastSupervisedTemplate, PackNetPlugin, in_memory
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.parts import Parts
from cl_powerprop.training.augment import Augmentation
from cl_powerprop.training.batches import count_batches, divide
from cl_powerprop.training.benchmark import TensorSamples
from cl_powerprop.training.loaders import MixedLoader, TensorLoader, statistics_batches
from cl_powerprop.training.tensor_data import MixedSamples

from .benchmarks import CLASSES, SIDE, make_benchmark, make_strategy, make_tensors

SIZES = {(1, 1): [1], (3, 1): [1, 1, 1], (1, 4): [1], (4, 4): [4], (5, 4): [5], (6, 4): [4, 2], (9, 4): [4, 5]}


def norm_net() -> nn.Module:
    """Batch norm over vectors, which torch refuses to train on one sample."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


class Sizes(SupervisedPlugin):
    """Keeps the size of every training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        self.sizes.append(len(strategy.mb_y))


def train(
    benchmark: Any, plugins: Sequence[SupervisedPlugin] = (), size: int = 16, **options: Any
) -> tuple[list[int], Any]:
    sizes = Sizes()
    model = norm_net()
    strategy = make_strategy(model, [*plugins, sizes], kind=FastSupervisedTemplate, epochs=1, **options)
    strategy.train_mb_size = size
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    return sizes.sizes, strategy


@pytest.mark.parametrize(("case", "sizes"), SIZES.items())
def test_division_into_batches(case: tuple[int, int], sizes: list[int]) -> None:
    samples, size = case
    parts = divide(samples, size)
    assert [len(range(samples)[part]) for part in parts] == sizes
    assert [index for part in parts for index in range(samples)[part]] == list(range(samples))
    assert count_batches(samples, size) == len(sizes)
    assert count_batches(samples, size, join_lone=False) == len(divide(samples, size, join_lone=False))
    assert all(len(range(samples)[part]) <= size for part in divide(samples, size, join_lone=False))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("case", "sizes"), SIZES.items())
def test_loaders_join_a_lone_sample(case: tuple[int, int], sizes: list[int], shuffle: bool) -> None:
    samples = TensorSamples(torch.arange(case[0]).view(-1, 1), torch.arange(case[0]))

    def order() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    loader = TensorLoader(samples, 3, case[1], order() if shuffle else None)
    mixed = MixedLoader(MixedSamples([samples]), case[1], order(), None, 0)
    for loaded, task in ((loader, 3), (mixed, 0)):
        batches = list(loaded)
        assert [len(labels) for _, labels, _ in batches] == sizes
        assert len(loaded) == len(sizes)
        assert torch.cat([labels for _, labels, _ in batches]).sort().values.tolist() == list(range(case[0]))
        for images, labels, tasks in batches:
            assert torch.equal(images.flatten(), labels)
            assert tasks.tolist() == [task] * len(labels)


def test_augmentation_of_a_joined_batch() -> None:
    images = torch.randn(5, 1, 6, 6)
    loader = TensorLoader(TensorSamples(images, torch.arange(5)), 0, 4, transform=Augmentation(1.0, 10.0), seed=1)
    ((shown, labels, _),) = loader
    assert shown.shape == images.shape
    assert labels.tolist() == [0, 1, 2, 3, 4]


METHODS = {
    "naive": lambda: [],
    "packnet": lambda: [PackNetPlugin(0.4)],
    "packnet, retraining": lambda: [PackNetPlugin(0.4, retrain_epochs=1)],
    "epn": lambda: [EPNPlugin(sparsities=[0.7, 0.3], validation=16 / 65)],
    "epn, 17 to validate": lambda: [EPNPlugin(sparsities=[0.7, 0.3], validation=17 / 65)],
}


@pytest.mark.parametrize("kind", ["tensors", "Avalanche's loader"])
@pytest.mark.parametrize("method", METHODS)
def test_batch_norm_trains_where_a_sample_is_left(method: str, kind: str) -> None:
    benchmark = make_benchmark(2, count=65)
    plugins = METHODS[method]()
    retraining = sum(getattr(plugin, "retrain_epochs", 0) for plugin in plugins)
    sizes = Sizes()
    strategy = make_strategy(norm_net(), [*plugins, sizes], kind=FastSupervisedTemplate, epochs=1 + retraining)
    strategy.eval_mb_size = 16
    for experience in (in_memory(benchmark) if kind == "tensors" else benchmark).train_stream:
        strategy.train(experience, eval_streams=[])
    trained = {"epn": [16, 16, 17], "epn, 17 to validate": [16, 16, 16]}.get(method, [16, 16, 16, 17])
    assert sizes.sizes == trained * 2 * (1 + retraining)


def test_without_task_labels_too() -> None:
    data = _make_taskaware_tensor_classification_dataset(*make_tensors(0, "train", 33), task_labels=0)
    assert train(with_classes_timeline(benchmark_from_datasets(train=[data], test=[data])))[0] == [16, 17]


def test_a_mixture_with_replayed_samples_stays_as_it_is() -> None:
    sizes, _ = train(in_memory(make_benchmark(2, count=33)), [ReplayPlugin(mem_size=20, batch_size_mem=4)])
    assert sizes == [16, 17, 20, 20, 5], "the one sample left is batched with four that are replayed"


def test_without_a_lone_sample_batches_are_those_of_avalanche() -> None:
    benchmark = in_memory(make_benchmark(1, count=60))
    stock = Sizes()
    make_strategy(norm_net(), [stock], kind=SupervisedTemplate, epochs=1).train(
        benchmark.train_stream[0], eval_streams=[]
    )
    assert train(benchmark)[0] == stock.sizes == [16, 16, 16, 12]


def test_evaluation_is_not_changed() -> None:
    class Tested(Sizes):
        def after_eval_iteration(self, strategy: Any, **_: Any) -> None:
            self.sizes.append(len(strategy.mb_y))

    tested, benchmark = Tested(), in_memory(make_benchmark(1))
    _, strategy = train(benchmark, [tested])
    tested.sizes.clear()
    strategy.eval_mb_size = 13
    strategy.eval(benchmark.test_stream)
    assert tested.sizes == [13, 13, 13, 1]


@pytest.mark.parametrize(("count", "size"), [(6, 1), (1, 16)])
@pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"compile": True}])
def test_a_single_sample_with_batch_norm_is_one_line(
    count: int, size: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="eager"))
    with pytest.raises(ConfigurationError, match="batch norm cannot normalise a single sample") as raised:
        train(in_memory(make_benchmark(1, count=count)), size=size, **options)
    assert "\n" not in str(raised.value)


def test_a_single_sample_without_batch_norm_trains() -> None:
    sizes = Sizes()
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, CLASSES))
    strategy = make_strategy(model, [sizes], kind=FastSupervisedTemplate, epochs=1)
    for count in (1, 3):
        strategy.train_mb_size = 1
        strategy.train(in_memory(make_benchmark(1, count=count)).train_stream[0], eval_streams=[])
    assert sizes.sizes == [1, 1, 1, 1]


def test_a_search_on_a_single_sample_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="batch norm cannot normalise a single sample"):
        train(in_memory(make_benchmark(1, count=33)), [EPNPlugin(sparsities=[0.5], validation=1 / 33)])


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(("size", "sizes"), [(1, [2, 3]), (2, [2, 3]), (4, [5]), (3, [3, 2])])
def test_batches_for_statistics_have_two_samples(size: int, sizes: list[int], wrapped: bool) -> None:
    benchmark = make_benchmark(1, count=5)
    data = (in_memory(benchmark) if wrapped else benchmark).train_stream[0].dataset
    batches = list(statistics_batches(data, 0, size, torch.device("cpu")))
    assert [len(batch[1]) for batch in batches] == sizes
    assert torch.equal(torch.cat([batch[0] for batch in batches]), make_tensors(0, "train", 5)[0])


def test_statistics_are_measured_again_when_evaluation_takes_one_sample_at_a_time() -> None:
    """They were reset, and no batch was left to measure them on."""
    masking = PackNetPlugin(0.5)
    strategy = make_strategy(norm_net(), [masking], kind=FastSupervisedTemplate, epochs=1)
    strategy.eval_mb_size = 1
    benchmark = in_memory(make_benchmark(1, count=32))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    norm = strategy.model[2]
    assert int(norm.num_batches_tracked) == 1  # all of them in one batch, whose statistics say something
    assert norm.running_mean.abs().min() > 0


@pytest.mark.parametrize(("kind", "steps"), [(FastSupervisedTemplate, 4), (SupervisedTemplate, 6)])
def test_steps_are_those_that_are_taken(kind: type[SupervisedTemplate], steps: int) -> None:
    benchmark = in_memory(make_benchmark(1, count=33))
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, CLASSES))
    strategy = make_strategy(model, [], kind=kind, epochs=2)
    assert Parts(benchmark, strategy).steps() == [steps]
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    assert strategy.clock.train_iterations == steps
