"""Any Avalanche benchmark, read into tensors: same samples, same training, transforms on batches."""

from typing import Any

import pytest
import torch
from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset
from avalanche.benchmarks.utils.transform_groups import TransformGroups
from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor
from torch.utils.data import Dataset

from cl_powerprop import EPNPlugin, FastSupervisedTemplate, in_memory
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.training.benchmark import TensorSamples
from cl_powerprop.training.tensor_data import TensorDataset, TensorLoader, find_tensors

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
