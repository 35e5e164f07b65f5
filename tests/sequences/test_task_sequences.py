"""Task sequences on small images whose pixels tell where they came from."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sequences.permuted import permuted
from cl_powerprop.sequences.split import class_groups, split_by_class
from cl_powerprop.tasks import Pixels, Split, TaskSequence, split_validation

SIDE, MEAN, STD = 6, 0.25, 0.5
PIXELS = SIDE * SIDE


def make_pixels(count: int, seed: int) -> Pixels:
    """Random images; the pixels of the first one count from 0, so that a permuted copy shows the permutation."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 1, SIDE, SIDE), dtype=np.uint8)
    images[0] = np.arange(PIXELS, dtype=np.uint8).reshape(1, SIDE, SIDE)
    return Pixels(torch.tensor(images), torch.tensor(np.arange(count) % 10), MEAN, STD)


TRAIN, TEST = make_pixels(100, 1), make_pixels(40, 2)


def make_permuted(**options: Any) -> TaskSequence:
    settings = {"n_tasks": 3, "scenario": "task", "permute_first": True, "validation": 0.2, "seed": 0}
    return permuted(TRAIN, TEST, 10, **(settings | options))


def make_split(**options: Any) -> TaskSequence:
    settings = {"n_tasks": 5, "classes": None, "scenario": "task", "validation": 0.2, "seed": 0} | options
    groups = class_groups(10, settings.pop("n_tasks"), settings.pop("classes"))
    return split_by_class(TRAIN, TEST, 10, groups=groups, **settings)


def pixels_of(split: Split) -> np.ndarray:
    """The images of a split with pixel values from 0 to 255, flattened."""
    return np.rint((split.images().double().numpy() * STD + MEAN) * 255).astype(int).reshape(len(split), -1)


def permutation_of(sequence: TaskSequence, task: int) -> np.ndarray:
    """The permutation of a task, read off the image whose pixels count from 0."""
    return pixels_of(sequence.tasks[task].test)[0]


def splits(sequence: TaskSequence) -> Iterator[tuple[str, Split]]:
    for index, task in enumerate(sequence.tasks):
        for name in ("train", "valid", "test"):
            yield f"{name} of task {index}", getattr(task, name)


@pytest.mark.parametrize("task", range(3))
def test_a_task_is_the_images_with_their_pixels_permuted(task: int) -> None:
    sequence = make_permuted()
    permutation = permutation_of(sequence, task)
    assert sorted(permutation) == list(range(PIXELS)), "a permutation loses no pixel"
    for split, source in (("train", TRAIN), ("valid", TRAIN), ("test", TEST)):
        view: Split = getattr(sequence.tasks[task], split)
        rows = view.rows.numpy()
        reference = source.images.numpy().reshape(-1, PIXELS)[rows][:, permutation]
        assert np.array_equal(pixels_of(view), reference)
        assert np.array_equal(view.labels.numpy(), source.labels.numpy()[rows])


def test_images_are_normalised() -> None:
    sequence = make_permuted(permute_first=False)
    images = sequence.tasks[0].test.images()
    assert images.dtype == torch.float32
    assert images.shape == (40, 1, SIDE, SIDE)
    np.testing.assert_allclose(images.numpy(), (TEST.images.numpy() / 255.0 - MEAN) / STD, rtol=1e-6, atol=1e-6)


def test_some_positions_of_a_split_are_those_of_the_whole() -> None:
    split = make_permuted().tasks[1].train
    which = torch.tensor([5, 0, 5, 7])
    assert torch.equal(split.images(which), split.images()[which])


def test_permutations_differ_by_task_and_seed() -> None:
    seen = {tuple(permutation_of(make_permuted(seed=seed), task)) for seed in range(3) for task in range(3)}
    assert len(seen) == 9
    assert tuple(range(PIXELS)) not in seen


def test_a_permutation_depends_on_seed_and_task_alone() -> None:
    reference = make_permuted(seed=7)
    torch.manual_seed(99)
    torch.rand(1000)
    others = [
        make_permuted(seed=7),
        make_permuted(seed=7, n_tasks=20),
        make_permuted(seed=7, validation=11),
        make_permuted(seed=7, scenario="domain"),
        make_permuted(seed=7, permute_first=False),
    ]
    for other in others:
        for task in (1, 2):
            assert np.array_equal(permutation_of(other, task), permutation_of(reference, task))


def test_more_tasks_leave_earlier_ones_as_they_are() -> None:
    few, many = make_permuted(n_tasks=2), make_permuted(n_tasks=9)
    for (name, one), (_, other) in zip(splits(few), splits(many), strict=False):
        assert one.fingerprint() == other.fingerprint(), name


def test_permute_first_false_leaves_task_0() -> None:
    sequence = make_permuted(permute_first=False)
    assert permutation_of(sequence, 0).tolist() == list(range(PIXELS))
    assert permutation_of(sequence, 1).tolist() != list(range(PIXELS))


@pytest.mark.parametrize("sequence", [make_permuted(), make_split()], ids=["permuted", "split"])
def test_train_and_valid_divide_the_training_images(sequence: TaskSequence) -> None:
    for task in sequence.tasks:
        train, valid = task.train.rows.tolist(), task.valid.rows.tolist()
        assert not set(train) & set(valid)
        assert train
        assert valid
        if sequence.name == "permuted_mnist":
            assert sorted(train + valid) == list(range(100))
    everything = [row for task in sequence.tasks for split in (task.train, task.valid) for row in split.rows.tolist()]
    assert set(everything) == set(range(100))


def test_all_test_images_are_used_whatever_the_validation() -> None:
    for size in (0.1, 0.5, 7):
        for task in make_permuted(validation=size).tasks:
            assert task.test.rows.tolist() == list(range(40))
            assert task.test.source is TEST
            assert task.train.source is task.valid.source is TRAIN


@pytest.mark.parametrize(("size", "expected"), [(0.2, 20), (0.015, 2), (1, 1), (30, 30), (99, 99)])
def test_validation_by_share_and_by_count(size: float, expected: int) -> None:
    task = make_permuted(validation=size).tasks[0]
    assert len(task.valid) == expected
    assert len(task.train) == 100 - expected


@pytest.mark.parametrize("size", [0, 0.0, 0.001, -0.1, -3, 100, 101, 0.999, float("nan"), float("inf")])
def test_an_empty_validation_or_training_split_is_refused(size: float) -> None:
    with pytest.raises(ConfigurationError, match=r"benchmark\.validation"):
        make_permuted(validation=size)


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_the_division_is_a_partition_and_depends_on_the_seed_alone(count: int, share: float, seed: int) -> None:
    expected = round(share * count)
    if not 0 < expected < count:
        with pytest.raises(ConfigurationError):
            split_validation(count, share, seed)
        return
    train, valid = split_validation(count, share, seed)
    assert len(valid) == expected
    assert sorted(train.tolist() + valid.tolist()) == list(range(count))
    torch.rand(3)
    again = split_validation(count, share, seed)
    assert torch.equal(train, again[0])
    assert torch.equal(valid, again[1])


def test_validation_differs_by_seed() -> None:
    assert len({tuple(split_validation(100, 0.3, seed)[1].tolist()) for seed in range(5)}) == 5


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_split_labels_by_scenario(scenario: str) -> None:
    sequence = make_split(scenario=scenario)
    assert sequence.scenario == scenario
    assert sequence.classes == ((10,) * 5 if scenario == "class" else (2,) * 5)
    for index, task in enumerate(sequence.tasks):
        for split in (task.train, task.valid, task.test):
            true = split.source.labels[split.rows]
            # a small validation split can miss a class by chance
            assert set(true.tolist()) <= {2 * index, 2 * index + 1}
            assert split is task.valid or len(set(true.tolist())) == 2
            shown = true if scenario == "class" else true - 2 * index
            assert torch.equal(split.labels, shown)
        assert task.name == f"classes_{2 * index}_{2 * index + 1}"
        assert set(task.test.rows.tolist()) == {row for row in range(40) if row % 10 // 2 == index}


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_any_split_of_classes(scenario: str) -> None:
    groups = [[7, 2, 9], [0], [5, 4]]
    sequence = make_split(n_tasks=3, classes=groups, scenario=scenario)
    assert [task.name for task in sequence.tasks] == ["classes_7_2_9", "classes_0", "classes_5_4"]
    assert sequence.classes == ((10,) * 3 if scenario == "class" else (3, 1, 2))
    for task, group in zip(sequence.tasks, groups, strict=True):
        for split in (task.train, task.valid, task.test):
            true = split.source.labels[split.rows].tolist()
            assert set(true) <= set(group)
            expected = true if scenario == "class" else [group.index(label) for label in true]
            assert split.labels.tolist() == expected
        assert set(task.test.rows.tolist()) == {row for row in range(40) if row % 10 in group}


@pytest.mark.parametrize(
    "groups", [[[0, 1], [1, 2]], [[0], [10]], [[0], []], [[-1], [2]], [[0, 0], [1]], [[0, 1, 2]], [[0], [1], [2]]]
)
def test_impossible_groups_of_classes(groups: list[list[int]]) -> None:
    with pytest.raises(ConfigurationError, match=r"benchmark\.classes"):
        make_split(n_tasks=2, classes=groups)


def test_split_images_are_not_altered() -> None:
    task = make_split().tasks[2]
    assert np.array_equal(pixels_of(task.test), TEST.images.numpy().reshape(40, -1)[task.test.rows.numpy()])


@pytest.mark.parametrize("n_tasks", [3, 4, 6, 11])
def test_an_uneven_split_names_what_divides(n_tasks: int) -> None:
    with pytest.raises(ConfigurationError, match=r"1, 2, 5, 10"):
        make_split(n_tasks=n_tasks)


@pytest.mark.parametrize("make", [make_permuted, make_split])
@pytest.mark.parametrize("n_tasks", [0, -1])
def test_no_task_is_refused(make: Any, n_tasks: int) -> None:
    with pytest.raises(ConfigurationError, match=r"benchmark\.n_tasks must be at least 1"):
        make(n_tasks=n_tasks)


def test_permuted_tasks_share_their_classes() -> None:
    with pytest.raises(ConfigurationError, match="task or domain"):
        make_permuted(scenario="class")


def test_fingerprints_depend_on_images_order_and_labels() -> None:
    split = make_permuted().tasks[0].train
    flipped = torch.flip(split.rows, [0])
    variants = [
        split,
        Split(split.source, flipped, torch.flip(split.labels, [0]), split.view),
        Split(split.source, split.rows, split.labels + 1, split.view),
        Split(split.source, split.rows, split.labels, None),
    ]
    assert len({variant.fingerprint() for variant in variants}) == 4
    assert split.fingerprint() == make_permuted().tasks[0].train.fingerprint()


@pytest.mark.parametrize("make", [make_permuted, make_split])
def test_no_task_holds_a_copy_of_the_images(make: Any) -> None:
    for name, split in splits(make()):
        source = TEST if name.startswith("test") else TRAIN
        assert split.source.images.data_ptr() == source.images.data_ptr(), name


def storages(sequence: TaskSequence) -> dict[int, int]:
    """Size in bytes of every storage that the tasks refer to, apart from the images."""
    tensors = [
        tensor
        for _, split in splits(sequence)
        for tensor in (split.rows, split.labels, getattr(split.view, "order", None))
        if tensor is not None
    ]
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}


def test_a_further_permuted_task_costs_one_permutation() -> None:
    few, many = make_permuted(n_tasks=10), make_permuted(n_tasks=110)
    assert sum(storages(many).values()) - sum(storages(few).values()) == 100 * PIXELS * 8


def test_the_avalanche_benchmark_says_tasks_classes_and_samples() -> None:
    from cl_powerprop.training.benchmark import to_avalanche

    for sequence, classes in (
        (make_permuted(), [list(range(10))] * 3),
        (make_split(), [[0, 1]] * 5),
        (make_split(scenario="class"), [[2 * task, 2 * task + 1] for task in range(5)]),
    ):
        benchmark = to_avalanche(sequence)
        assert set(benchmark.streams) == {"train", "valid", "test"}
        for name, stream in benchmark.streams.items():
            assert len(stream) == len(sequence)
            for index, experience in enumerate(stream):
                split = getattr(sequence.tasks[index], name)
                assert experience.current_experience == index
                assert experience.task_label == index
                assert experience.task_labels == [index]
                # a small validation split can miss a class by chance
                expected = sorted(set(split.labels.tolist())) if name == "valid" else classes[index]
                assert experience.classes_in_this_experience == expected
                assert isinstance(experience.classes_in_this_experience, list)
                assert len(experience.dataset) == len(split)
                assert list(experience.dataset.targets) == split.labels.tolist()
                image, label, task = experience.dataset[1]
                assert torch.equal(image, split.images()[1])
                assert (int(label), int(task)) == (int(split.labels[1]), index)


def test_one_hundred_tasks_of_4000_images_are_made_quickly() -> None:
    from cl_powerprop.training.benchmark import to_avalanche

    big = Pixels(torch.zeros(4000, 1, 28, 28, dtype=torch.uint8), torch.arange(4000) % 10, 0.0, 1.0)
    start = time.perf_counter()
    sequence = permuted(big, big, 10, n_tasks=100, scenario="task", permute_first=True, validation=0.1, seed=0)
    benchmark = to_avalanche(sequence)
    assert len(benchmark.streams["train"]) == 100
    assert time.perf_counter() - start < 20, "it takes about one second on a free machine"
    assert sum(storages(sequence).values()) < 2e6
