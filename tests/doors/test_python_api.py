"""The public names in a script: a run from overrides or a config, its data, and its network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from sklearn.datasets import load_digits
from torch import Tensor

import cl_powerprop
from cl_powerprop import load, load_benchmark, load_runs, load_task, save
from cl_powerprop.assemble import assemble
from cl_powerprop.errors import ConfigurationError, UserError
from cl_powerprop.seeding import generator

from ..run.conftest import tree
from .conftest import OURS

pytestmark = pytest.mark.slow

MASKED = [*OURS, "strategy=packnet", "train.epochs=2"]


def test_every_public_name_is_there() -> None:
    assert [name for name in cl_powerprop.__all__ if not hasattr(cl_powerprop, name)] == []
    assert set(dir(cl_powerprop)) == set(cl_powerprop.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Stratgy'"):
        cl_powerprop.Stratgy  # noqa: B018


def test_a_run_from_overrides_is_the_run_of_the_command_and_of_the_config(command: Any) -> None:
    result = cl_powerprop.run([*MASKED, "seed=3"], "a")
    assert result.path == Path("a")
    written = json.loads(Path("a/run.json").read_text())
    assert {**result.record, "metrics": None} == {**written, "metrics": None}
    numbers = {name: value for name, value in written["metrics"].items() if value is not None}
    assert {name: result.record["metrics"][name] for name in numbers} == numbers
    assert (result.record["strategy"], result.record["seed"], result.record["status"]) == ("packnet", 3, "complete")
    again = cl_powerprop.run(cl_powerprop.compose([*MASKED, "seed=3", "run_dir=b"]))
    assert again.path == Path("b")
    assert command("run", *MASKED, "seed=3", "run_dir=c") == 0
    for file in ("accuracy_matrix.csv", "capacity.csv", "config.yaml", "weights.csv"):
        assert tree(Path("a"))[file] == tree(Path("b"))[file] == tree(Path("c"))[file], file
    assert cl_powerprop.run([*MASKED, "seed=3"], "a").record == written, "it is complete, and stays as it is"
    with pytest.raises(UserError, match="seed"):
        cl_powerprop.run([*MASKED, "seed=4"], "a")
    with pytest.raises(UserError, match="never overwritten"):
        cl_powerprop.run([*MASKED, "seed=3", "resume=never"], "a")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["strategy=mine"], "unknown strategy 'mine'; choose from: agem"),
        (["strategy.gama=1"], "unknown option 'strategy.gama'; did you mean 'gamma'?"),
        (["strategy.gamma=x"], "strategy.gamma: Value 'x' of type 'str' could not be converted to Float"),
        (["strategy.gamma=2"], r"strategy.gamma must be in \(0, 1\], not 2.0"),
        (["seed"], "seed"),
    ],
)
def test_a_mistake_is_a_configuration_error_and_writes_nothing(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        cl_powerprop.run([*OURS, *overrides], "run")
    assert not Path("run").exists()


class Watch(SupervisedPlugin):  # type: ignore[misc]
    """Keeps every batch that is trained on or tested."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = {}

    def before_forward(self, strategy: Any, **_: Any) -> None:
        self._keep("train", strategy)

    def before_eval_forward(self, strategy: Any, **_: Any) -> None:
        self._keep(strategy.experience.origin_stream.name, strategy)

    def _keep(self, split: str, strategy: Any) -> None:
        kept = self.batches.setdefault((split, strategy.experience.current_experience), [])
        kept.append((strategy.mb_x.clone(), strategy.mb_y.clone()))


def rows(images: Tensor, labels: Tensor) -> list[bytes]:
    """The samples in an order of their own, to the bit."""
    table = np.column_stack([images.flatten(1).numpy(), labels.numpy().astype(np.float32)])
    return sorted(row.tobytes() for row in table)


@pytest.mark.parametrize("benchmark", ["permuted", "rotated", "split"])
def test_a_task_is_what_the_run_saw(benchmark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch of a whole run is looked at as it reaches the network."""
    watch = Watch()

    def watched(config: Any, sequence: Any) -> Any:
        parts = assemble(config, sequence)
        parts.learner.plugins = [*parts.learner.plugins, watch]
        return parts

    monkeypatch.setattr("cl_powerprop.experiment.assemble", watched)
    words = [*OURS, f"benchmark={benchmark}", "strategy=naive", "seed=5", "train.epochs=1"]
    result = cl_powerprop.run(words, "run")
    for task in range(2):
        for split in ("train", "valid", "test"):
            images, labels = load_task(result.path, task, split)  # type: ignore[arg-type]
            seen = [torch.cat(parts) for parts in zip(*watch.batches[split, task], strict=True)]
            times = len(seen[1]) // len(labels)  # task 0 is tested after each task
            assert rows(*seen) == sorted(rows(images, labels) * times), (split, task)
    for source in (words, cl_powerprop.compose(words), str(result.path)):
        for one, other in zip(load_task(source, 1), load_task(result.path, 1), strict=True):
            assert torch.equal(one, other)


def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """scikit-learn's digits as bytes, their labels, and which are for testing: every fifth of each class."""
    data = load_digits()
    places = [np.flatnonzero(data.target == label)[4::5] for label in range(10)]
    return (
        np.round(data.images * (255 / 16)).astype(np.uint8),
        data.target,
        np.isin(np.arange(len(data.target)), np.concatenate(places)),
    )


def normalised(images: np.ndarray[Any, Any], train: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Images with the mean and deviation of the training pixels taken out, to three or four digits as is usual."""
    shares = train / 255
    return (images / 255 - shares.mean()) / shares.std()


@pytest.mark.parametrize("first", [True, False])
def test_permuted_pixels_are_those_that_a_few_lines_of_numpy_make(first: bool) -> None:
    images, labels, tested = digits()
    expected = normalised(images, images[~tested])
    words = [*OURS, "benchmark=permuted", f"benchmark.permute_first={first}", "seed=7", "strategy=naive"]
    for task in range(2):
        shown, named = load_task(words, task)
        order = torch.randperm(64, generator=generator(7, "permutation", task)).numpy()
        order = order if task or first else np.arange(64)
        assert shown.shape == (tested.sum(), 1, 8, 8)
        assert (shown.dtype, named.dtype) == (torch.float32, torch.int64)
        np.testing.assert_array_equal(named, labels[tested])
        flat = expected[tested].reshape(-1, 64)[:, order]
        np.testing.assert_allclose(shown.reshape(-1, 64), flat, atol=2e-3)


def test_rotated_images_are_those_that_scipy_makes() -> None:
    """By quarter turns to the bit; by other angles like scipy's own bilinear interpolation, in the middle."""
    from scipy import ndimage

    images, _, tested = digits()
    words = [*OURS, "benchmark=rotated", "benchmark.n_tasks=3", "benchmark.angles=[0,90,30]", "strategy=naive"]
    upright, quarter, third = (load_task(words, task)[0][:, 0].numpy() for task in range(3))
    np.testing.assert_allclose(upright, normalised(images, images[~tested])[tested], atol=2e-3)
    np.testing.assert_array_equal(quarter, np.rot90(upright, 1, (1, 2)))
    turned = ndimage.rotate(images[tested].astype(float), 30, axes=(2, 1), reshape=False, order=1)
    expected = normalised(turned, images[~tested])
    middle = np.s_[:, 2:6, 2:6]
    np.testing.assert_allclose(third[middle], expected[middle], atol=0.02)
    assert np.abs(third - upright).mean() > 0.1


def test_split_labels_count_from_zero_in_each_task() -> None:
    words = cl_powerprop.compose([*OURS, "benchmark=split", "benchmark.n_tasks=5", "strategy=naive"])
    images, labels, tested = digits()
    for task in range(5):
        shown, named = load_task(words, task)
        mine = tested & np.isin(labels, [2 * task, 2 * task + 1])
        np.testing.assert_array_equal(named, labels[mine] - 2 * task)
        np.testing.assert_allclose(shown[:, 0], normalised(images, images[~tested])[mine], atol=2e-3)
        train, valid = (set(rows(*load_task(words, task, split))) for split in ("train", "valid"))  # type: ignore[arg-type]
        assert train.isdisjoint(valid)
        assert len(train) + len(valid) == (~tested & np.isin(labels, [2 * task, 2 * task + 1])).sum()


@pytest.mark.parametrize(
    ("task", "split", "said"),
    [
        (2, "test", "there is no task 2; the tasks are 0 to 1"),
        (-1, "test", "there is no task -1; the tasks are 0 to 1"),
        (0, "validation", "split must be one of train, valid, test, not 'validation'"),
    ],
)
def test_a_task_that_is_not_there(task: int, split: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_task([*OURS, "strategy=naive"], task, split)


def test_a_folder_without_a_run() -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_task("nowhere", 0)
    Path("empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        load_benchmark(Path("empty"))


def test_a_benchmark_is_its_tasks() -> None:
    words = [*OURS, "benchmark=rotated", "benchmark.n_tasks=3", "strategy=naive"]
    benchmark = load_benchmark(words, device="cpu")
    assert {name: len(stream) for name, stream in benchmark.streams.items()} == {"train": 3, "valid": 3, "test": 3}
    for name, stream in benchmark.streams.items():
        for task, experience in enumerate(stream):
            assert experience.task_label == task
            images, labels = load_task(words, task, name)  # type: ignore[arg-type]
            dataset = experience.dataset
            shown = [dataset[index] for index in (0, 7, len(dataset) - 1)]
            for (image, label, where), index in zip(shown, (0, 7, len(dataset) - 1), strict=True):
                assert torch.equal(image, images[index])
                assert (int(label), int(where)) == (int(labels[index]), task)


def test_a_network_is_saved_and_loaded_by_the_public_names(tmp_path: Path) -> None:
    result = cl_powerprop.run(MASKED, "run")
    loaded = load("run")
    accuracy = [float(value) for value in Path("run/accuracy_matrix.csv").read_text().splitlines()[-1].split(",")]
    for task in range(2):
        images, labels = load_task("run", task)
        correct = loaded(images, task=task).argmax(1) == labels
        assert float(correct.double().mean()) == pytest.approx(accuracy[task], abs=1e-12)
    architecture = assemble(cl_powerprop.compose(MASKED)).architecture
    masked = {"unmasked": "per_task"}
    save(result.model, tmp_path / "copy.safetensors", architecture=architecture, masked=masked, n_tasks=2)
    copied = load(tmp_path / "copy.safetensors")
    images, _ = load_task("run", 1)
    assert torch.equal(copied(images, task=1), loaded(images, task=1))
    with pytest.raises(LookupError, match="there is no task 2"):
        copied(images, task=2)


def test_load_runs_reads_what_run_wrote() -> None:
    result = cl_powerprop.run([*OURS, "strategy=naive"], "run")
    runs = load_runs("run")
    (row,) = runs.runs.to_dict("records")
    assert row["average_accuracy"] == result.record["metrics"]["average_accuracy"]
    assert "average_accuracy" in runs.metrics
