"""One task: the whole data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_powerprop import load_task
from cl_powerprop.assemble import load_sequence
from cl_powerprop.data.digits import Digits
from cl_powerprop.data.omniglot import DRAWERS, Omniglot
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.source import DataSource
from cl_powerprop.tasks import Task

from ..data.omniglot_zips import small_dataset, small_files, write_zips
from ..run.conftest import compose_config

CPU = torch.device("cpu")


def make(*words: str) -> Task:
    config = compose_config("benchmark=single", *words)
    config.check()
    sequence = load_sequence(config, CPU)
    assert sequence.name == "single"
    (task,) = sequence.tasks
    return task


def test_the_task_is_the_whole_data_set() -> None:
    task, images = make("data=digits"), Digits().read(Path("unused"))
    assert (task.name, task.classes) == ("digits", 10)
    assert sorted(torch.cat([task.train.rows, task.valid.rows]).tolist()) == list(range(1442))
    assert len(task.valid) == 144
    expected = (images.test_images[:, None] / 255.0 - Digits.mean) / Digits.std
    np.testing.assert_allclose(task.test.images().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert task.test.labels.tolist() == images.test_labels.tolist()
    assert task.train.labels.tolist() == images.train_labels[task.train.rows.numpy()].tolist()


def test_its_validation_images_are_those_of_the_other_sequences() -> None:
    other = load_sequence(compose_config("benchmark=permuted", "data=digits"), CPU).tasks[0]
    assert make("data=digits").valid.rows.tolist() == other.valid.rows.tolist()


@pytest.mark.parametrize(("validation", "count"), [("0.0833333", 120), ("7", 7)])
def test_validation_from_the_end_and_pixels_that_are_not_normalised(validation: str, count: int) -> None:
    words = ("data=digits", "data.normalize=false", "benchmark.validation_from=end")
    tasks = [make(*words, f"benchmark.validation={validation}", f"seed={seed}") for seed in (0, 1)]
    images = Digits().read(Path("unused"))
    for task in tasks:
        assert task.train.rows.tolist() == list(range(1442 - count))
        assert task.valid.rows.tolist() == list(range(1442 - count, 1442))
        for split, pixels in ((task.valid, images.train_images[-count:]), (task.test, images.test_images)):
            assert torch.equal(split.images(), torch.tensor(pixels)[:, None].float() / 255.0)


def test_load_task_has_the_same_data() -> None:
    words = ["benchmark=single", "data=digits", "data.normalize=false"]
    images, labels = load_task(words, 0, "test")
    assert torch.equal(images, make(*words[1:]).test.images())
    assert len(labels) == 355


def test_without_normalising_any_sequence_has_pixels_from_0_to_1() -> None:
    for benchmark in ("permuted", "split", "rotated"):
        task = load_sequence(
            compose_config(f"benchmark={benchmark}", "data=digits", "data.normalize=false"), CPU
        ).tasks[0]
        assert float(task.train.images().min()) == 0.0
        assert float(task.train.images().max()) == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["benchmark.n_tasks=2"], "benchmark=single is one task; benchmark.n_tasks must be 1, not 2"),
        (["benchmark.validation_from=start"], "benchmark.validation_from must be one of random, end, not 'start'"),
        (["benchmark.validation=0"], "benchmark.validation=0.0 leaves nothing"),
        (["data=omniglot", "benchmark.validation_from=end"], "benchmark.validation_from must be random"),
        (["data=omniglot", "benchmark.test=0"], "benchmark.test=0.0 of 20 drawers leave nothing"),
        (
            ["data=omniglot", "data.characters=half"],
            "data.characters must be one of all, background, evaluation, not 'half'",
        ),
    ],
)
def test_what_it_cannot_do_is_said_before_data_is_read(words: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        compose_config("benchmark=single", *words).check()


@pytest.fixture
def small_omniglot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three characters in two background alphabets, and three in one evaluation alphabet."""
    small = small_dataset()
    write_zips(tmp_path, small_files())
    monkeypatch.setattr(Omniglot.__init__, "__defaults__", (small.zips, small.sha256))
    return tmp_path


@pytest.mark.parametrize(("characters", "first", "count"), [("all", 0, 6), ("background", 0, 3), ("evaluation", 3, 3)])
def test_omniglot_as_one_task_is_split_by_drawer(small_omniglot: Path, characters: str, first: int, count: int) -> None:
    words = ("data=omniglot", f"data.root={small_omniglot}", f"data.characters={characters}")
    task = make(*words, "benchmark.test=3", "benchmark.validation=0.2")
    assert (task.name, task.classes) == ("omniglot", count)
    drawings = small_dataset().read(small_omniglot, 28)
    seen: list[set[Any]] = []
    for split, drawers in ((task.train, 13), (task.valid, 4), (task.test, 3)):
        rows = split.rows.numpy() + first * DRAWERS
        assert split.labels.tolist() == (drawings.character[rows] - first).tolist()
        assert sorted(split.labels.tolist()) == sorted(list(range(count)) * drawers), (
            "every character is in every split"
        )
        shown = split.images()[:, 0].double().numpy() * Omniglot.std + Omniglot.mean
        assert np.array_equal(np.rint(shown * 255), drawings.images[rows])
        seen.append(set(zip(drawings.alphabet[rows].tolist(), drawings.drawer[rows].tolist(), strict=True)))
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert {drawer for _, drawer in seen[2]} == {17, 18, 19}, "the last drawers, whatever the seed"


def test_the_drawers_are_those_of_the_sequence_of_alphabets(small_omniglot: Path) -> None:
    root = f"data.root={small_omniglot}"
    shares = ("benchmark.validation=0.2", "benchmark.test=0.2")
    words = ("benchmark=omniglot", "benchmark.n_tasks=3", root, *shares)
    tasks = load_sequence(compose_config(*words), CPU).tasks
    single = make("data=omniglot", root, *shares)
    for split in ("train", "valid", "test"):
        rows = [row for task in tasks for row in getattr(task, split).rows.tolist()]
        assert getattr(single, split).rows.tolist() == sorted(rows)


def test_not_to_normalise_changes_one_source_and_no_other() -> None:
    config = compose_config("data=digits", "data.normalize=false").data
    assert (DataSource(config, CPU).dataset.mean, DataSource(config, CPU).dataset.std) == (0.0, 1.0)
    assert Digits().mean == Digits.mean == 0.3053
