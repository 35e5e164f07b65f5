"""Any Avalanche benchmark, read into tensors: same samples, same training, transforms on batches."""

from typing import Any

import pytest
import torch
from avalanche.benchmarks import benchmark_with_validation_stream, ni_benchmark
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from avalanche.benchmarks.scenarios.supervised import new_instances_benchmark, with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import task_incremental_benchmark, with_task_labels
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.classification_dataset import (
    _as_taskaware_supervised_classification_dataset as as_taskaware_classification_dataset,
)
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import confusion_matrix_metrics
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor
from torch.utils.data import Dataset

from cl_powerprop import EPNPlugin, FastSupervisedTemplate, in_memory, load_benchmark
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.training.benchmark import TensorSamples
from cl_powerprop.training.loaders import TensorLoader
from cl_powerprop.training.tensor_data import TensorDataset, find_tensors

from .avalanche_strategies import stock_benchmark, vectors
from .benchmarks import CLASSES, conv_net, dense_net, make_benchmark, make_strategy, make_tensors


class Batches(SupervisedPlugin):
    """Keeps the network's inputs, and the loaders that they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.train: list[Tensor] = []
        self.eval: list[list[Tensor]] = []
        self.loaders: set[type] = set()

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        self.train.append(strategy.mb_x.clone())
        self.loaders.add(type(strategy.dataloader))

    def before_eval(self, strategy: Any, **_: Any) -> None:
        self.eval.append([])

    def before_eval_iteration(self, strategy: Any, **_: Any) -> None:
        self.eval[-1].append(strategy.mb_x.clone())
        self.loaders.add(type(strategy.dataloader))


def train(benchmark: Any, kind: type[SupervisedTemplate], *plugins: SupervisedPlugin, **options: Any) -> Any:
    shuffle = options.pop("shuffle", False)
    strategy = make_strategy(conv_net(), plugins, kind=kind, epochs=2, **options)
    results = []
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[], shuffle=shuffle)
        results.append(strategy.eval(benchmark.test_stream))
    return {name: value.tolist() for name, value in strategy.model.state_dict().items()}, results


def test_streams_samples_and_labels_stay() -> None:
    stock = make_benchmark(2, labels=[4, 1])
    wrapped = in_memory(stock)
    assert list(wrapped.streams) == list(stock.streams)
    for name, stream in stock.streams.items():
        assert len(wrapped.streams[name]) == len(stream) == 2
        for one, other in zip(stream, wrapped.streams[name], strict=True):
            assert (other.task_label, other.classes_in_this_experience) == (one.task_label, [0, 1, 2])
            assert len(other.dataset) == len(one.dataset)
            for mine, theirs in zip(other.dataset, one.dataset, strict=True):
                assert torch.equal(mine[0], theirs[0])
                assert [int(value) for value in mine[1:]] == [int(value) for value in theirs[1:]]


def test_training_on_it_is_training_on_the_stock_benchmark() -> None:
    batches = Batches()
    stock = train(make_benchmark(2), SupervisedTemplate)
    fast = train(in_memory(make_benchmark(2)), FastSupervisedTemplate, batches)
    assert fast == stock
    assert batches.loaders == {TensorLoader}


def test_plain_avalanche_trains_on_it_too() -> None:
    assert train(in_memory(make_benchmark(2)), SupervisedTemplate) == train(make_benchmark(2), SupervisedTemplate)


def test_the_shape_of_samples_and_their_type_are_free() -> None:
    class Vectors(Dataset[Any]):
        targets = (0, 1, 0, 1)

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return torch.full((7,), index, dtype=torch.uint8), self.targets[index]

    data = as_classification_dataset(Vectors())
    wrapped = in_memory(with_classes_timeline(benchmark_from_datasets(train=[data], test=[data])))
    inputs = find_tensors(wrapped.train_stream[0].dataset).samples.images()
    assert inputs.dtype == torch.uint8
    assert inputs.tolist() == [[index] * 7 for index in range(4)]
    assert not hasattr(wrapped.train_stream[0], "task_labels"), "none are made up"
    to_float = lambda images, _: images.float()  # noqa: E731
    wrapped = in_memory(
        with_classes_timeline(benchmark_from_datasets(train=[data], test=[data])),
        train_transform=to_float,
        eval_transform=to_float,
    )
    strategy = make_strategy(torch.nn.Linear(7, 2), [], kind=FastSupervisedTemplate)
    strategy.train(wrapped.train_stream[0], eval_streams=[])
    assert strategy.eval(wrapped.test_stream)


def noise(images: Tensor, draws: torch.Generator) -> Tensor:
    return images + torch.rand(images.shape, generator=draws, device=images.device)


def test_train_transform_is_for_training_and_repeats_with_the_seed() -> None:
    def run(seed: int) -> Batches:
        batches = Batches()
        benchmark = in_memory(make_benchmark(2), train_transform=noise)
        train(benchmark, FastSupervisedTemplate, batches, seed=seed, shuffle=True)
        return batches

    one, same, other = run(0), run(0), run(1)
    assert all(torch.equal(mine, its) for mine, its in zip(one.train, same.train, strict=True))
    assert not torch.equal(one.train[0], other.train[0])
    plain = make_tensors(0, "train", 64)[0]
    first, second = (torch.cat(one.train[start : start + 4]) for start in (0, 4))
    nearest = torch.cdist(first.flatten(1), plain.flatten(1)).argmin(1)
    noises = first - plain[nearest]
    assert 0.0 <= noises.min() < 0.05
    assert 0.95 < noises.max() < 1.0
    assert not torch.equal(first.sort(0).values, second.sort(0).values), "each epoch draws new numbers"
    assert torch.equal(torch.cat(one.eval[0]), torch.cat([make_tensors(task, "test", 40)[0] for task in (0, 1)]))


def test_eval_transform_is_for_evaluation_and_draws_the_same_every_time() -> None:
    batches = Batches()
    train(in_memory(make_benchmark(2), eval_transform=noise), FastSupervisedTemplate, batches)
    assert torch.equal(torch.cat(batches.train[:4]), make_tensors(0, "train", 64)[0])
    first, second = (torch.cat(seen) for seen in batches.eval)
    assert torch.equal(first, second)
    noises = first - torch.cat([make_tensors(task, "test", 40)[0] for task in (0, 1)])
    assert 0.0 <= noises.min() < 0.05
    assert 0.95 < noises.max() < 1.0


def test_validation_samples_held_out_of_an_experience_stay_tensors() -> None:
    batches, seen = Batches(), []

    class Looking(EPNPlugin):
        def choose_masks(self, strategy: Any) -> Any:
            seen.append(find_tensors(self._validation_data))
            return super().choose_masks(strategy)

    epn = Looking(validation=0.25, sparsities=[0.5])
    strategy = make_strategy(dense_net(), [epn, batches], kind=FastSupervisedTemplate)
    benchmark = in_memory(make_benchmark(1), train_transform=noise, eval_transform=lambda images, _: images)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    assert batches.loaders == {TensorLoader}
    held_out = seen[0]
    assert len(held_out) == 16
    assert held_out.train_transform is noise
    assert sum(len(batch) for batch in batches.train) == 3 * 48
    everything = make_tensors(0, "train", 64)[0].flatten(1).tolist()
    validation = held_out.samples.images().flatten(1).tolist()
    assert all(sample in everything for sample in validation)
    data = benchmark.train_stream[0].dataset
    part = find_tensors(data.subset([5, 3, 9]).subset([2, 0]))
    assert torch.equal(part.samples.images(), make_tensors(0, "train", 64)[0][[9, 5]])
    assert torch.equal(part.samples.labels, make_tensors(0, "train", 64)[1][[9, 5]])


def test_transforms_of_avalanche_put_on_later_are_left_to_it() -> None:
    benchmark = in_memory(make_benchmark(1))
    data = benchmark.train_stream[0].dataset
    double = {"train": lambda image: image * 2, "eval": lambda image: image * 2}
    doubled = AvalancheDataset([data], transform_groups=TransformGroups(double))
    assert find_tensors(doubled) is None, "they work sample by sample, so Avalanche's own loader has to"
    assert find_tensors(doubled.eval()) is None
    assert find_tensors(data) is not None


def test_a_mixture_is_left_to_avalanche() -> None:
    one, other = (experience.dataset for experience in in_memory(make_benchmark(2)).train_stream)
    assert find_tensors(one.concat(other)) is None


# What is not data, and what is: the streams and the data sets themselves, which are compared one by one.
NOT_COMPARED = {"streams", "train_stream", "test_stream", "stream_definitions", "classes_in_experience"}


def described(thing: Any) -> dict[str, Any]:
    """Return what can be read of a benchmark, a stream or an experience, methods and its relations left out."""
    names = {name for name in dir(thing) if not name.startswith("_")} - NOT_COMPARED
    values = {name: getattr(thing, name) for name in names}
    return {name: value for name, value in values.items() if not callable(value)}


@pytest.mark.parametrize("labels", [False, True])
def test_everything_that_can_be_read_of_a_benchmark_is_there_and_the_same(labels: bool) -> None:
    stock = stock_benchmark(labels)
    wrapped = in_memory(stock)
    assert type(wrapped) is type(stock)
    assert described(wrapped) == described(stock)
    assert described(wrapped)["n_classes"] == 10
    assert wrapped.get_reproducibility_data() == stock.get_reproducibility_data()
    for name, stream in stock.streams.items():
        its = wrapped.streams[name]
        assert getattr(wrapped, f"{name}_stream") is its
        assert type(its) is type(stream)
        assert its.benchmark is wrapped
        assert list(wrapped.classes_in_experience[name]) == list(stock.classes_in_experience[name])
        for one, other in zip(stream, its, strict=True):
            theirs, ours = described(one), described(other)
            assert ours.keys() == theirs.keys()
            assert (ours.pop("benchmark"), ours.pop("origin_stream")) == (wrapped, its)
            data, stock_data = ours.pop("dataset"), theirs.pop("dataset")
            assert {name: value for name, value in theirs.items() if name in ours} == ours
            assert list(data.targets) == list(stock_data.targets)
            assert list(data.targets_task_labels) == list(stock_data.targets_task_labels)
            assert data.targets.val_to_idx == stock_data.targets.val_to_idx
            assert list(data.task_set) == list(stock_data.task_set)
            other.dataset = data.subset([0])  # as BiC does, for this one object
            assert len(other.dataset) == 1
    assert [len(experience.dataset) for experience in wrapped.train_stream] == [24] * 5
    assert stock.train_stream[0].benchmark is stock, "the original stays as it is"


def test_a_slice_of_a_stream_is_one() -> None:
    wrapped = in_memory(stock_benchmark())
    part = wrapped.train_stream[1:3]
    assert [experience.current_experience for experience in part] == [1, 2]
    assert part[0].origin_stream is part
    assert part[0].classes_in_this_experience == wrapped.train_stream[1].classes_in_this_experience


def test_benchmarks_of_every_kind_are_copied() -> None:
    stock = stock_benchmark()
    held_out = benchmark_with_validation_stream(stock, 0.25, seed=0)
    mixed = in_memory(CLScenario([stock.train_stream[1:4], held_out.valid_stream]))
    assert [experience.current_experience for experience in mixed.train_stream] == [1, 2, 3]
    validated = in_memory(held_out)
    assert list(validated.streams) == list(held_out.streams)
    assert validated.test_stream[0].benchmark.n_classes == 10
    assert find_tensors(validated.test_stream[0].dataset) is not None
    train, test = vectors(60, 0), vectors(60, 1)
    data = [as_taskaware_classification_dataset(each) for each in (train, test)]
    for made, count in (
        (new_instances_benchmark(*data, num_experiences=3, seed=0), 3),
        (task_incremental_benchmark(held_out, reset_task_labels=True), 5),
        (ni_benchmark(train, test, 3, seed=0), 3),
    ):
        wrapped = in_memory(made)
        for name, stream in made.streams.items():
            for one, other in zip(stream, wrapped.streams[name], strict=True):
                assert other.origin_stream.benchmark.streams[name] is wrapped.streams[name]
                assert (other.current_experience, len(other.dataset)) == (one.current_experience, len(one.dataset))
                assert getattr(other, "task_label", None) == getattr(one, "task_label", None)
        assert len(list(wrapped.train_stream)) == count
        assert wrapped.n_classes == 10
        assert len(wrapped.train_stream[0].benchmark.n_classes_per_exp) == count


def test_streams_can_be_split_afterwards() -> None:
    wrapped = in_memory(stock_benchmark())
    split = benchmark_with_validation_stream(wrapped, 0.25, seed=0)
    for stream, count in ((split.train_stream, 18), (split.valid_stream, 6)):
        found = [find_tensors(experience.dataset) for experience in stream]
        assert [len(part.samples) for part in found] == [count] * 5
    labelled = task_incremental_benchmark(wrapped, reset_task_labels=True)
    seen = set()

    class Labels(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **_: Any) -> None:
            seen.update(strategy.mb_task_id.tolist())
            assert type(strategy.dataloader) is TensorLoader

    strategy = make_strategy(torch.nn.Linear(6, 10), [Labels()], kind=FastSupervisedTemplate, epochs=1)
    for experience in labelled.train_stream:
        strategy.train(experience, eval_streams=[])
    assert seen == set(range(5))


def test_what_data_attributes_add_to_a_sample_is_not_lost() -> None:
    data = in_memory(stock_benchmark()).train_stream[0].dataset
    weights = DataAttribute([0.5] * len(data), "weights", use_in_getitem=True)
    weighted = data.update_data_attribute("weights", weights)
    assert weighted[0][-1] == 0.5
    assert find_tensors(weighted) is None, "tensors have no such value, so Avalanche's own loader has to"


def test_transforms_reach_samples_that_are_loaded_one_by_one() -> None:
    stock = make_benchmark(2)
    data = in_memory(stock, train_transform=noise, eval_transform=lambda images, _: -images).train_stream[0].dataset
    plain = stock.train_stream[0].dataset
    first, again = (data.train()[0][0] - plain[0][0] for _ in range(2))
    assert 0.0 < first.mean() < 1.0
    assert not torch.equal(first, again)
    assert torch.equal(data.eval()[0][0], -plain[0][0])
    batches = Batches()
    benchmark = in_memory(make_benchmark(2), train_transform=lambda images, _: images + 100)
    train(benchmark, FastSupervisedTemplate, batches, ReplayPlugin(30))
    assert all((batch > 50).all() for batch in batches.train)


def test_the_tasks_of_a_sequence_are_described_too() -> None:
    benchmark = load_benchmark(["data=digits", "benchmark=split"], device="cpu")
    assert (benchmark.n_classes, benchmark.n_classes_per_exp) == (2, [2] * 5)
    for stream in benchmark.streams.values():
        assert all(each.benchmark is benchmark is each.origin_stream.benchmark for each in stream)
    matrix = EvaluationPlugin(confusion_matrix_metrics(stream=True, save_image=False), strict_checks=True, loggers=[])
    strategy = make_strategy(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)), [], evaluator=matrix)
    strategy.train(benchmark.train_stream[0])
    results = strategy.eval(benchmark.test_stream)
    assert results["ConfusionMatrix_Stream/eval_phase/test_stream"].sum() == 355


def test_several_task_labels_in_an_experience_are_refused() -> None:
    mixed = [
        _make_taskaware_tensor_classification_dataset(*make_tensors(0, "train", 4), task_labels=labels)
        for labels in ([0, 0, 0, 0], [0, 1, 0, 1])
    ]
    benchmark = with_classes_timeline(with_task_labels(benchmark_from_datasets(train=mixed)))
    with pytest.raises(ConfigurationError, match=r"experience 1 of stream train has the task labels \[0, 1\]"):
        in_memory(benchmark)


def test_samples_of_several_shapes_are_refused() -> None:
    class Ragged(Dataset[Any]):
        targets = (0, 1)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return torch.zeros(3 + index), index

    benchmark = with_classes_timeline(benchmark_from_datasets(train=[as_classification_dataset(Ragged())]))
    with pytest.raises(ConfigurationError, match="experience 0 of stream train cannot be held as one tensor"):
        in_memory(benchmark)


def test_samples_can_be_indexed_one_by_one() -> None:
    samples = TensorSamples(torch.arange(6.0).view(3, 2), torch.tensor([2, 0, 1]))
    data = TensorDataset(samples)
    assert [(row.tolist(), label) for row, label in (data[index] for index in range(3))] == [
        ([0.0, 1.0], 2),
        ([2.0, 3.0], 0),
        ([4.0, 5.0], 1),
    ]
    assert CLASSES == 3
