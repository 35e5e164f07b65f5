"""Pictures read whenever they are needed: batches, order, crops, errors of workers, and whole runs on them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.training.templates import SupervisedTemplate

from cl_powerprop.data.folder import FolderConfig
from cl_powerprop.errors import ConfigurationError, DataError
from cl_powerprop.sequences.permuted import permuted
from cl_powerprop.sequences.split import split_by_class
from cl_powerprop.source import DataSource
from cl_powerprop.tasks import TaskSequence
from cl_powerprop.training import loaders, tensor_data
from cl_powerprop.training.augment import Augmentation
from cl_powerprop.training.benchmark import to_avalanche
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.loaders import TensorLoader

from ..data.picture_folder import write_pictures

SIZE, TRAINED = 12, 22


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pictures(tmp_path)
    return tmp_path


def sequence(root: Path, *, in_memory: bool = False, workers: int = 0, n_tasks: int = 1) -> TaskSequence:
    """Permuted pictures, the first task of which is not permuted: 22 to train on, 2 to validate on, 12 to test on."""
    config = FolderConfig(
        name="folder",
        root=str(root),
        folder="imagenet",
        size=SIZE,
        resize=14,
        in_memory=in_memory,
        memory_gb=1.0,
        workers=workers,
    )
    source = DataSource(config, torch.device("cpu"))
    train, test = source.pixels()
    return permuted(train, test, 3, n_tasks=n_tasks, scenario="task", permute_first=False, validation=0.1, seed=0)


def learner(workers: int | None, batch_size: int = 5, seed: int = 0) -> FastSupervisedTemplate:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return FastSupervisedTemplate(
        model=model,
        optimizer=optimizer,
        train_mb_size=batch_size,
        eval_mb_size=batch_size,
        evaluator=None,
        workers=workers,
        seed=seed,
    )


def batches(sequence: TaskSequence, *, epochs: int = 1, train: bool = True, batch_size: int = 5, **options: Any) -> Any:
    """The batches that a learner loads of the last task, and its loader."""
    benchmark = to_avalanche(sequence, **options)
    strategy = learner(sequence.workers, batch_size)
    strategy.experience = benchmark.streams["train" if train else "test"][-1]
    if train:
        strategy.train_dataset_adaptation()
        strategy.make_train_dataloader()
    else:
        strategy.eval_dataset_adaptation()
        strategy.make_eval_dataloader()
    return [list(strategy.dataloader) for _ in range(epochs)], strategy.dataloader


def same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        all(torch.equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("train", [True, False])
def test_batches_are_to_the_bit_those_from_memory(root: Path, train: bool) -> None:
    """Order, task labels, the lone last sample (of 22, with batches of 7 or 3) and the view of a task are the same."""
    for batch_size in (7, 3):
        held, loader = batches(sequence(root, in_memory=True, n_tasks=2), epochs=2, train=train, batch_size=batch_size)
        assert isinstance(loader, TensorLoader)
        streamed, loader = batches(sequence(root, n_tasks=2), epochs=2, train=train, batch_size=batch_size)
        assert not isinstance(loader, TensorLoader)
        assert all(same(one, other) for one, other in zip(held, streamed, strict=True))
        assert len(loader) == len(streamed[0])
        assert same(*held) is not train, "each training epoch has its own order"


def test_the_number_of_workers_makes_no_difference(root: Path) -> None:
    change = {"train_transform": Augmentation(shift=1, rotate=10, flip=True), "crop": 0.3}
    alone, _ = batches(sequence(root), epochs=2, **change)
    helped, loader = batches(sequence(root, workers=2), epochs=2, **change)
    assert all(same(one, other) for one, other in zip(alone, helped, strict=True))
    plain, _ = batches(sequence(root))
    assert not same(plain[0], alone[0])
    for each in (loader, batches(sequence(root), epochs=0, **change)[1]):
        before = torch.random.get_rng_state()
        assert len(list(each)) == len(each)
        assert torch.equal(before, torch.random.get_rng_state()), "torch's own generator stays where it is"


def test_a_loader_goes_on_from_the_state_of_its_generators(root: Path) -> None:
    change = {"train_transform": Augmentation(flip=True), "crop": 0.3}
    (_, second), _ = batches(sequence(root), epochs=2, **change)
    _, first = batches(sequence(root), epochs=1, **change)
    states = {name: draws.get_state() for name, draws in first.generators.items()}
    _, other = batches(sequence(root), epochs=0, **change)
    assert set(states) == {"order", "transform"}
    for name, draws in other.generators.items():
        draws.set_state(states[name])
    assert same(list(other), second)


def test_crops_are_of_the_whole_picture(root: Path) -> None:
    """A wide picture whose left and right thirds are never in its centre shows them in crops."""
    from PIL import Image

    path = root / "imagenet" / "train" / "n00000000"
    for file in path.iterdir():
        file.unlink()
    pixels = np.full((20, 80, 3), 128, np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(path / "wide.png")
    tasks = sequence(root)
    data = to_avalanche(tasks, crop=0.1).streams["train"][0].dataset
    (row,) = (row for row in range(len(data)) if data.targets[row] == 0)
    torch.manual_seed(0)
    bright = [float(data[row][0].max()) for _ in range(30)]
    assert max(bright) > 2 > min(bright)
    assert float(data.eval()[row][0].max()) < 0.5


def test_an_evaluation_on_training_data_is_not_augmented(root: Path) -> None:
    tasks = sequence(root)
    data = to_avalanche(tasks, Augmentation(flip=True), crop=0.2).streams["train"][0].dataset
    plain = tasks.tasks[0].train
    assert all(torch.equal(data.eval()[row][0], plain.images(torch.tensor([row]))[0]) for row in range(5))
    assert not all(torch.equal(data.train()[row][0], plain.images(torch.tensor([row]))[0]) for row in range(5))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_one_line_whoever_reads_it(root: Path, workers: int) -> None:
    path = root / "imagenet" / "train" / "n00000001" / "picture_0.JPEG"
    path.write_bytes(b"no picture")
    benchmark = to_avalanche(sequence(root, workers=workers))
    strategy = learner(workers)
    with pytest.raises(DataError) as raised:
        strategy.train(benchmark.streams["train"][0], eval_streams=[])
    assert str(raised.value) == f"{path} cannot be read as a picture: it has no known format"


def test_avalanche_s_own_template_trains_on_them(root: Path) -> None:
    benchmark = to_avalanche(sequence(root, n_tasks=2), crop=0.5)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = SupervisedTemplate(model=model, optimizer=optimizer, train_mb_size=8, evaluator=None)
    before = model[1].weight.detach().clone()
    for experience in benchmark.streams["train"]:
        strategy.train(experience, num_workers=1)
    assert not torch.equal(model[1].weight, before)
    assert model[1].weight.isfinite().all()


def test_tasks_of_different_classes_are_streamed_too(root: Path) -> None:
    train = sequence(root).tasks[0].train.source
    tasks = split_by_class(train, train, 3, groups=[[0], [1, 2]], scenario="class", validation=0.2, seed=0)
    data = to_avalanche(tasks).streams["train"][1].dataset
    assert set(data.targets) == {1, 2}
    assert torch.equal(data[0][0], tasks.tasks[1].train.images(torch.tensor([0]))[0])


def test_tasks_are_not_mixed_unless_they_are_held(root: Path) -> None:
    held, streamed = sequence(root, in_memory=True, n_tasks=2), sequence(root, n_tasks=2)
    mixed = [tensor_data.MixedSamples([task.train for task in tasks.tasks]) for tasks in (held, streamed)]
    to_avalanche(held, trained=[mixed[0]])
    with pytest.raises(ConfigurationError, match=r"strategy=joint, only in memory: use data.in_memory=true"):
        to_avalanche(streamed, trained=[mixed[1]])


@pytest.mark.parametrize("shuffle", [True, False])
def test_images_too_many_to_prepare_at_once_are_the_same(
    root: Path, shuffle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = sequence(root, in_memory=True, n_tasks=2).tasks[1].train

    def loaded() -> list[list[torch.Tensor]]:
        return list(TensorLoader(samples, 0, 5, torch.Generator().manual_seed(0) if shuffle else None))

    held = loaded()
    asked: list[int] = []
    real = type(samples).images

    def spy(self: Any, which: Any = slice(None)) -> torch.Tensor:
        images = real(self, which)
        asked.append(len(images))
        return images

    monkeypatch.setattr(type(samples), "images", spy)
    monkeypatch.setattr(loaders, "_MOST_HELD", 0)
    assert same(held, loaded())
    assert max(asked) == 5, "never more than a batch"
