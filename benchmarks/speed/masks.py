"""Compressed masks of saved networks: their size, and the time that saving and loading take.

    python benchmarks/speed/masks.py [--small] [--out FOLDER]

Each network is saved as it is now, and with one bit for each weight and task, as earlier versions did. Times are the
least of three, in seconds of the processor.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.saving import BEFORE, load, save, write_tensors
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.sparsity.mask_coding import decode_masks, encode_masks
from cl_powerprop.tensor_file import read_tensors

NETWORKS = {"784-100-100": ([100, 100], 10), "784-1500-1500": ([1500, 1500], 100)}
REPEATS = 3


def random_mask(weight: Any, draws: torch.Generator) -> Tensor:
    """A tenth of all weights, wherever they are."""
    return torch.rand(weight.owner.shape, generator=draws) < 0.1


def reusing_mask(weight: Any, draws: torch.Generator) -> Tensor:
    """Three tenths of the weights that earlier tasks use, and two hundredths of the others, as with EPN."""
    return torch.rand(weight.owner.shape, generator=draws) < torch.where(weight.frozen, 0.3, 0.02)


def growing_mask(weight: Any, draws: torch.Generator) -> Tensor:
    """All weights that earlier tasks use, and two hundredths of the others, as with PackNet."""
    return weight.frozen | (torch.rand(weight.owner.shape, generator=draws) < 0.02)


KINDS: dict[str, Callable[[Any, torch.Generator], Tensor]] = {
    "random": random_mask, "reusing": reusing_mask, "growing": growing_mask,
}  # fmt: skip


def seconds(call: Callable[[], Any]) -> float:
    """Return the least time of some calls."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def saved(
    path: Path, hidden: list[int], tasks: int, choose: Callable[[Any, torch.Generator], Tensor]
) -> Callable[[], None]:
    """Return what saves a network whose tasks have masks of one kind."""
    architecture = {
        **{"name": "mlp", "sample_shape": [1, 28, 28], "classes": [10] * tasks, "heads": "per_task", "bias": "frozen"},
        **{"hidden": hidden},
    }
    network = build_model(**architecture)
    allocator = MaskAllocator(network, "frozen", exclude=(TaskHeads,))
    for task in range(tasks):
        draws = generator(0, "masks", task)
        for weight in allocator.weights.values():
            weight.allocate(choose(weight, draws), task)
    return lambda: save(network, path, architecture=architecture, masked={"unmasked": "frozen"}, n_tasks=tasks)


def uncompressed(path: Path, other: Path) -> None:
    """Write a saved network as earlier versions did."""
    tensors, metadata = read_tensors(path)
    for name in [name for name in tensors if name.endswith(".coded_masks")]:
        shape = tensors[name.replace("0.coded_masks", "original")].shape
        tasks = len(tensors[name.replace("coded_masks", "labels")])
        tensors[name.replace("coded_masks", "masks")] = decode_masks(tensors.pop(name), shape, tasks)
    write_tensors(other, tensors, {"format": BEFORE, "description": metadata["description"]})


def measure(name: str, kind: str, folder: Path) -> dict[str, Any]:
    """Return the row of one network."""
    hidden, tasks = NETWORKS[name]
    now, before = folder / "now.safetensors", folder / "before.safetensors"
    write = saved(now, hidden, tasks, KINDS[kind])
    saving = seconds(write)
    uncompressed(now, before)
    raw = {key: value for key, value in read_tensors(before)[0].items() if key.endswith(".masks")}
    shapes = {key: value.shape for key, value in read_tensors(before)[0].items() if key.endswith(".original")}
    masks = {key: (value, shapes[key.replace("0.masks", "original")]) for key, value in raw.items()}
    coded = {key: encode_masks(*value) for key, value in masks.items()}
    bits = sum(value.numel() * 8 for value in raw.values())
    coding = seconds(lambda: [encode_masks(*value) for value in masks.values()])
    decoding = seconds(lambda: [decode_masks(coded[key], shape, tasks) for key, (_, shape) in masks.items()])
    return {
        "network": name,
        "tasks": tasks,
        "masks": kind,
        "bits_per_weight_and_task": sum(8 * len(value) for value in coded.values()) / bits,
        "file_bytes": now.stat().st_size,
        "file_bytes_uncompressed": before.stat().st_size,
        "save_seconds": saving,
        "load_seconds": seconds(lambda: load(now)),
        "load_seconds_uncompressed": seconds(lambda: load(before)),
        "coding_ns_a_bit": coding / bits * 1e9,
        "decoding_ns_a_bit": decoding / bits * 1e9,
    }


def main() -> None:
    """Measure all networks and kinds of masks, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="the small network only")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = list(NETWORKS)[:1] if options.small else list(NETWORKS)
    with TemporaryDirectory() as folder:
        table = pd.DataFrame([measure(name, kind, Path(folder)) for name in names for kind in KINDS])
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "masks.csv", index=False, float_format="%.4g")
    print(table.to_string(index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()
