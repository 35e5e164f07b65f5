"""Export the network of one task of a run: make it small, write it, check the file, and measure it."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cl_powerprop.assemble import load_sequence
from cl_powerprop.documents import read_json
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.exporting.dead_units import remove_dead_units
from cl_powerprop.exporting.files import load_exported, write_exported
from cl_powerprop.exporting.folding import fold_batch_norms
from cl_powerprop.exporting.measuring import Call, Cost, cost, milliseconds, torch_threads
from cl_powerprop.exporting.network import ExportedNetwork
from cl_powerprop.exporting.onnx_file import check_onnx, open_onnx, write_onnx
from cl_powerprop.exporting.sparse_kernels import with_sparse_kernels
from cl_powerprop.exporting.tracing import trace
from cl_powerprop.files import write_file
from cl_powerprop.limits import check_threads
from cl_powerprop.saving import LoadedModel, load
from cl_powerprop.stored_config import load_config
from cl_powerprop.tasks import Split, Task

BATCH_SIZES = (1, 256)

_LEAST = 1e-7  # by which logits may differ, however small they are
_TOLERANCE = 1e-3  # by which logits may differ, relative to the largest: rounding stays far below
_TOGETHER = 1000  # images that are checked at a time


@dataclass(frozen=True)
class Measured:
    """What a network costs.

    Attributes:
        cost: its weights and operations.
        bytes: size of its file.
        milliseconds: median time of a batch, by the size of the batch.
    """

    cost: Cost
    bytes: int
    milliseconds: dict[int, float]


@dataclass(frozen=True)
class Checked:
    """How an exported network agrees with the one that it was made from, on all test images of its task.

    Attributes:
        images: how many there are.
        same: of how many both networks predict the same class.
        correct: of how many the exported network predicts the right class.
        difference: the largest difference of a logit.
    """

    images: int
    same: int
    correct: int
    difference: float


@dataclass(frozen=True)
class Exported:
    """An exported network.

    Attributes:
        path: its file.
        task: its task, from 0.
        name: of the task.
        threads: with which times were measured.
        checked: that it computes the same.
        costs: by name: "dense", with all units, zeros stored like other weights, batch norms folded, in a file of the
            same format; "exported"; and "exported, sparse kernels", where these skip zeros.
    """

    path: Path
    task: int
    name: str
    threads: int
    checked: Checked
    costs: dict[str, Measured]


def compact(
    network: nn.Module, sample: Tensor, task: int | None = None, select: bool = True
) -> tuple[ExportedNetwork, ExportedNetwork]:
    """Return a plain copy of what a network computes, with all units and without dead ones.

    In both, masks and Powerpropagation are folded into plain weights, and batch norms into the layers before them.

    Args:
        network: any network of layers that an exported one can have; it is not changed, but ``task`` is selected.
        sample: a batch of inputs, ``[n, *sample_shape]``; its values do not matter.
        task: the task whose outputs are computed; None for the one that is selected.
        select: whether pixels that a fully connected network does not use may be left out.

    Raises:
        ConfigurationError: if it computes something that an exported network cannot.
    """
    dense = fold_batch_norms(trace(network, sample, task))
    return dense, remove_dead_units(dense.copied(), sample.shape[1:], select)


def export(
    run: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    task: int | None = None,
    root: str | None = None,
    threads: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write the network of one task of a run so that it stands alone, check the file, and measure it.

    The file is checked on all test images of the task before it takes the place of an earlier one.

    Args:
        run: folder of the run.
        to: the file to write: .safetensors, for :func:`load_exported`, or .onnx.
        task: which task, from 0; None if the run has learned only one.
        root: folder of the data, if the run was given one as an absolute path.
        threads: with which to measure times.
        progress: is told what is done next.

    Raises:
        ConfigurationError: for another ending, a task that was not learned, a network that computes something that an
            exported one cannot, or if the packages for ONNX are not installed.
        UserError: for a folder that holds no run, or data that is missing.
        RuntimeError: if the file does not compute what the run's network does.
    """
    path, folder = Path(to), Path(run)
    file_format = _format_of(path)
    check_threads("--threads", threads)
    if folder.is_file():
        raise RunFolderError(f"{folder} is a file; name the run's folder, {folder.parent}")
    progress("loading the network and its data")
    model = load(folder)
    chosen = _choose(model, task)
    learned = _read_task(folder, chosen, root)
    sample = learned.test.images(slice(0, 1))
    progress("removing what has no effect")
    dense, small = compact(model.network, sample, chosen, file_format.select)
    with tempfile.TemporaryDirectory() as work, torch_threads(threads):
        files = [Path(work) / f"{name}{path.suffix}" for name in ("dense", "small")]
        progress("writing the file")
        file_format.write(dense, files[0], sample, sparse=False)
        file_format.write(small, files[1], sample, _facts(folder, chosen, learned))
        calls = [file_format.open(file, threads) for file in files]
        progress(f"comparing both networks on {len(learned.test):,} test images")
        checked = _check(lambda images: model(images, chosen), calls[1], learned.test)
        sizes = [file.stat().st_size for file in files]
        networks = {"dense": (dense, sizes[0], calls[0]), "exported": (small, sizes[1], calls[1])}
        sparse = with_sparse_kernels(small) if file_format.sparse_kernels else None
        if sparse is not None:
            _check(calls[1], sparse, learned.test)
            networks["exported, sparse kernels"] = (small, sizes[1], sparse)
        progress("measuring times")
        times = {
            size: milliseconds([call for *_, call in networks.values()], _batch(learned.test, size))
            for size in BATCH_SIZES
        }
        _move(files[1], path)
    costs = {
        name: Measured(cost(network, sample), bytes, {size: each[index] for size, each in times.items()})
        for index, (name, (network, bytes, _)) in enumerate(networks.items())
    }
    return Exported(path, chosen, learned.name, threads, checked, costs)


@dataclass(frozen=True)
class _Format:
    """A kind of file.

    Attributes:
        write: writes a network.
        open: returns what runs a file with so many threads.
        check: raises if what it needs is not installed.
        select: pixels may be left out; in onnxruntime, selecting takes longer than the multiplications that it saves.
        sparse_kernels: what runs it has some.
    """

    write: Callable[..., None]
    open: Callable[[Path, int], Call]
    check: Callable[[], None]
    select: bool
    sparse_kernels: bool


_FORMATS = {
    ".safetensors": _Format(write_exported, lambda path, _: load_exported(path), lambda: None, True, True),
    ".onnx": _Format(write_onnx, open_onnx, check_onnx, False, False),
}


def _format_of(path: Path) -> _Format:
    if path.suffix not in _FORMATS:
        raise ConfigurationError(f"--to {path}: the file must end in {' or '.join(_FORMATS)}")
    if path.is_dir():
        raise ConfigurationError(f"--to {path} is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--to {path}: there is no folder {path.parent}")
    _FORMATS[path.suffix].check()
    return _FORMATS[path.suffix]


def _choose(model: LoadedModel, task: int | None) -> int:
    learned = model.n_tasks
    if task is None and learned == 1:
        return 0
    if task is None or not 0 <= task < learned:
        tasks = f"the tasks 0 to {learned - 1}; choose one by --task" if learned > 1 else "task 0 only"
        wrong = "" if task is None else f"there is no task {task}: "
        raise ConfigurationError(f"{wrong}the run has learned {tasks}")
    return task


def _read_task(folder: Path, task: int, root: str | None) -> Task:
    config = load_config(folder)
    config.check()
    if root is not None:
        config.data.root = root
    return load_sequence(config, torch.device("cpu")).tasks[task]


def _facts(folder: Path, task: int, learned: Task) -> dict[str, Any]:
    """Return what a file says of its network; pixels are to be normalised as (value / 255 - mean) / std."""
    try:
        run_id = str(read_json(folder / "run.json")["run_id"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunFolderError(f"{folder / 'run.json'} cannot be read: {error}") from error
    source = learned.test.source
    mean, std = (torch.as_tensor(value).flatten().tolist() for value in (source.mean, source.std))
    return {"run_id": run_id, "task": task, "name": learned.name, "mean": mean, "std": std}


def _batch(split: Split, size: int) -> Tensor:
    """Return so many images, the first of a split over and over if it has fewer."""
    return split.images(torch.arange(size) % len(split))


@torch.inference_mode()
def _check(before: Call, after: Call, split: Split) -> Checked:
    """Compare two networks on all images of a split.

    Raises:
        RuntimeError: if their logits differ by more than rounding.
    """
    same = correct = 0
    difference = 0.0
    for rows in torch.arange(len(split)).split(_TOGETHER):
        images, labels = split.images(rows), split.labels[rows]
        expected, found = before(images), after(images)
        difference = max(difference, (expected - found).abs().max().item())
        if not difference <= _TOLERANCE * expected.abs().max().item() + _LEAST:
            raise RuntimeError(f"the exported network differs from the run's by up to {difference:.2g} in a logit")
        same += int((expected.argmax(1) == found.argmax(1)).sum())
        correct += int((found.argmax(1) == labels).sum())
    return Checked(len(split), same, correct, difference)


def _move(file: Path, path: Path) -> None:
    """Put a file in its place, at once, from whatever file system it lies on."""
    try:
        write_file(path, file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"--to {path}: it cannot be written: {error.strerror}") from error
