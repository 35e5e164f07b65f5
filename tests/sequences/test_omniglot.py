"""Omniglot's tasks on small drawings whose pixels identify them, and on the full data set if it is available."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_powerprop.data.omniglot import DRAWERS, Drawings, Omniglot
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.sequences.omniglot import omniglot, omniglot_rotation
from cl_powerprop.tasks import Split, TaskSequence

COUNTS = {"Abc": 30, "Runes": 3, "Dots": 5}
CHARACTERS = sum(COUNTS.values())


def make_drawings() -> Drawings:
    """Drawing n has the bytes of n in two corners, so that its rotation can be seen."""
    total = CHARACTERS * DRAWERS
    images = np.zeros((total, 6, 6), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = 1 + np.arange(total) // 256, np.arange(total) % 256
    return Drawings(
        images,
        np.repeat(np.arange(len(COUNTS)), [count * DRAWERS for count in COUNTS.values()]),
        np.repeat(np.arange(CHARACTERS), DRAWERS),
        np.tile(np.arange(DRAWERS), CHARACTERS),
        tuple(COUNTS),
    )


DRAWINGS = make_drawings()
COMMON: dict[str, Any] = {"scenario": "task", "order": "fixed", "validation": 0.2, "test": 0.2, "seed": 0}


def make(drawings: Drawings = DRAWINGS, **options: Any) -> TaskSequence:
    settings = COMMON | {"n_tasks": 3} | options
    return omniglot(Omniglot(), drawings, torch.device("cpu"), **settings)


def make_rotation(**options: Any) -> TaskSequence:
    settings = COMMON | {"n_tasks": 3, "split_by": "drawer"} | options
    return omniglot_rotation(Omniglot(), DRAWINGS, torch.device("cpu"), **settings)


def seen(split: Split) -> np.ndarray:
    """Which drawing each sample is, and by how many quarter turns it is rotated, read off its pixels."""
    shares = split.images().double().numpy() * Omniglot.std + Omniglot.mean
    images = np.rint(shares * 255).astype(int)[:, 0]
    found = []
    for image in images:
        upright = [np.rot90(image, -quarter) for quarter in range(4)]
        (quarter,) = [quarter for quarter in range(4) if upright[quarter][0, 0] and upright[quarter][1:].sum() == 0]
        high, low = upright[quarter][0, :2]
        found.append((256 * (high - 1) + low, quarter))
    return np.array(found)


def test_a_task_is_an_alphabet_with_labels_of_its_own() -> None:
    sequence = make()
    assert [task.name for task in sequence.tasks] == list(COUNTS)
    assert sequence.classes == tuple(COUNTS.values())
    first = 0
    for task, count in zip(sequence.tasks, COUNTS.values(), strict=True):
        for split, drawers in ((task.train, 12), (task.valid, 4), (task.test, 4)):
            numbers = split.rows.numpy()
            assert np.array_equal(split.labels.numpy(), DRAWINGS.character[numbers] - first)
            assert np.bincount(split.labels.numpy()).tolist() == [drawers] * count, "every character is in every split"
        first += count


def test_no_drawer_is_in_two_splits_and_all_drawings_are_used() -> None:
    for task in make().tasks:
        drawers = [set(DRAWINGS.drawer[split.rows.numpy()].tolist()) for split in (task.train, task.valid, task.test)]
        assert [len(who) for who in drawers] == [12, 4, 4]
        assert set.union(*drawers) == set(range(DRAWERS))
    splits = [split for task in make().tasks for split in (task.train, task.valid, task.test)]
    rows = [row for split in splits for row in split.rows.tolist()]
    assert sorted(rows) == list(range(CHARACTERS * DRAWERS))


def test_test_drawers_are_fixed_and_validation_drawers_drawn() -> None:
    validating = set()
    for seed in range(6):
        task = make(seed=seed).tasks[0]
        assert set(DRAWINGS.drawer[task.test.rows.numpy()].tolist()) == {16, 17, 18, 19}
        validating.add(tuple(sorted(set(DRAWINGS.drawer[task.valid.rows.numpy()].tolist()))))
    assert len(validating) > 3


def test_splits_by_number_of_drawers() -> None:
    task = make(validation=1, test=9).tasks[1]
    assert [len(split) for split in (task.train, task.valid, task.test)] == [30, 3, 27]


@pytest.mark.parametrize(("validation", "test"), [(0, 4), (4, 0), (10, 10), (0.5, 0.5), (0.01, 0.2), (float("nan"), 1)])
def test_an_empty_split_is_refused(validation: float, test: float) -> None:
    with pytest.raises(ConfigurationError, match="of 20 drawers leave nothing"):
        make(validation=validation, test=test)


def test_fewer_tasks_are_the_first_ones() -> None:
    few, all_tasks = make(n_tasks=2), make()
    for one, other in zip(few.tasks, all_tasks.tasks, strict=False):
        assert one.name == other.name
        for split in ("train", "valid", "test"):
            assert getattr(one, split).fingerprint() == getattr(other, split).fingerprint()


@pytest.mark.parametrize("n_tasks", [0, -1, 4])
def test_an_impossible_number_of_alphabets(n_tasks: int) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 3, the number of alphabets"):
        make(n_tasks=n_tasks)


def test_a_random_order_comes_from_the_seed() -> None:
    orders = {tuple(task.name for task in make(order="random", seed=seed).tasks) for seed in range(20)}
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(COUNTS))}
    assert len(orders) > 3
    task = next(task for task in make(order="random", seed=1).tasks if task.name == "Runes")
    assert task.train.fingerprint() == make(seed=1).tasks[1].train.fingerprint(), "who draws depends on the alphabet"
    with pytest.raises(ConfigurationError, match="fixed, random"):
        make(order="sorted")


def test_class_labels_count_over_all_tasks() -> None:
    sequence = make(scenario="class", order="random", seed=2)
    assert sequence.classes == (CHARACTERS,) * 3
    labels = [sorted(set(task.test.labels.tolist())) for task in sequence.tasks]
    assert [label for task in labels for label in task] == list(range(CHARACTERS))


def test_no_task_holds_a_copy() -> None:
    for sequence in (make(), make_rotation()):
        images = {
            split.source.images.data_ptr() for task in sequence.tasks for split in (task.train, task.valid, task.test)
        }
        assert len(images) == 1


def test_rotations_are_one_label() -> None:
    sequence = make_rotation()
    assert sequence.classes == (12, 12, 12)
    for index, task in enumerate(sequence.tasks):
        everything = []
        for split, drawers in ((task.train, 12), (task.valid, 4), (task.test, 4)):
            numbers = seen(split)
            assert np.array_equal(split.labels.numpy(), DRAWINGS.character[numbers[:, 0]] - 12 * index)
            assert np.bincount(split.labels.numpy()).tolist() == [4 * drawers] * 12
            everything += [tuple(pair) for pair in numbers.tolist()]
        wanted = {(number, quarter) for number in range(240 * index, 240 * (index + 1)) for quarter in range(4)}
        assert sorted(everything) == sorted(wanted)
        assert task.name == f"characters_{12 * index}_to_{12 * index + 11}"


def drawings_of(split: Split) -> set[int]:
    return set(seen(split)[:, 0].tolist())


def test_no_rotated_copy_of_a_training_drawing_is_tested() -> None:
    for task in make_rotation().tasks:
        assert not drawings_of(task.train) & drawings_of(task.test)
        assert not drawings_of(task.train) & drawings_of(task.valid)
        assert not drawings_of(task.valid) & drawings_of(task.test)


def test_split_by_picture_tests_copies_of_training_drawings() -> None:
    """The option exists to measure how much such a split overestimates the accuracy."""
    sequence = make_rotation(split_by="picture", validation=0.25, test=0.25)
    for task in sequence.tasks:
        assert [len(split) for split in (task.train, task.valid, task.test)] == [480, 240, 240]
        assert drawings_of(task.train) & drawings_of(task.test)
        pairs = [tuple(pair) for split in (task.train, task.valid, task.test) for pair in seen(split).tolist()]
        assert len(set(pairs)) == 960, "a partition"


def test_split_by_character_divides_the_images_of_each_character() -> None:
    """Twelve characters, 80 images of each, of which 60 train and 20 test, as Kang et al. have them."""
    sequence = make_rotation(split_by="character", validation=12, test=20)
    for task in sequence.tasks:
        sizes = [split.labels.bincount().tolist() for split in (task.train, task.valid, task.test)]
        assert sizes == [[48] * 12, [12] * 12, [20] * 12]
        assert drawings_of(task.train) & drawings_of(task.test)


@pytest.mark.parametrize("split_by", ["drawer", "picture", "character"])
def test_validation_on_the_training_data_leaves_the_test_data_as_they_are(split_by: str) -> None:
    apart = make_rotation(split_by=split_by, validation=4, test=4)
    together = make_rotation(split_by=split_by, validation=4, test=4, validate_on="training")
    for one, other in zip(apart.tasks, together.tasks, strict=True):
        held = sorted([*one.train.rows.tolist(), *one.valid.rows.tolist()])
        assert other.train.rows.tolist() == other.valid.rows.tolist() == held
        assert torch.equal(one.test.rows, other.test.rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_tasks": 4}, "has 3 tasks of 12 characters"),
        ({"n_tasks": 0}, "at least 1"),
        ({"split_by": "person"}, "drawer, picture, character"),
        ({"validate_on": "test"}, "held_out, training"),
        ({"split_by": "character", "validation": 0}, "of 80 images leave nothing"),
        ({"order": "sorted"}, "fixed, random"),
        ({"split_by": "picture", "validation": 0}, "of 960 images leave nothing"),
    ],
)
def test_impossible_rotation_tasks(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_rotation(**options)


def test_class_labels_of_rotation_tasks() -> None:
    sequence = make_rotation(scenario="class", order="random", n_tasks=2)
    assert sequence.classes == (24, 24)
    assert sorted(set(sequence.tasks[1].train.labels.tolist())) == list(range(12, 24))


@pytest.mark.full_data
def test_all_fifty_alphabets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.environ.get("CL_POWERPROP_DATA")
    if not folder or not (Path(folder) / "omniglot-py" / "images_background.zip").exists():
        pytest.skip("needs Omniglot in $CL_POWERPROP_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    drawings = Omniglot().read(Path(folder))
    sequence = make(drawings, n_tasks=50)
    assert sum(sequence.classes) == 1623
    assert sum(sequence.classes[:30]) == 964
    assert [task.name for task in sequence.tasks][:3] == ["Alphabet_of_the_Magi", "Anglo-Saxon_Futhorc", "Arcadian"]
    assert sequence.tasks[30].name == "Angelic"
    for task in sequence.tasks:
        splits = (task.train, task.valid, task.test)
        assert [len(split) for split in splits] == [12 * task.classes, 4 * task.classes, 4 * task.classes]
        assert len(set.union(*(set(split.rows.tolist()) for split in splits))) == DRAWERS * task.classes
        drawers = [set(drawings.drawer[split.rows.numpy()].tolist()) for split in splits]
        assert not any(one & other for one, other in ((drawers[0], drawers[1]), (drawers[1], drawers[2])))
