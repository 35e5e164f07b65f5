"""Steps of larger networks in bf16 on random images of their usual sizes: plain, recorded, compiled, both."""

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from common import Trained, make_config

from cl_powerprop.assemble import choose_device, load_sequence

if TYPE_CHECKING:
    from gpu import Sizes, Tables

STEPS, EPOCHS, CLASSES = 20, 8, 10
# The first epochs, in which steps are compiled and recorded, are left out.
SETTLED = 4
NETWORKS: dict[str, tuple[list[str], tuple[int, int], int]] = {  # words, channels and side of an image, batch
    "mlp": (["model=mlp", "model.hidden=[100,100]"], (1, 28), 128),
    "convnet": (["model=convnet"], (1, 28), 128),
    "resnet18": (["model=resnet18"], (3, 32), 128),
    "resnet50": (["model=resnet50"], (3, 224), 64),
}
WAYS = {
    "plain": ["train.cuda_graphs=false"],
    "graphs": ["train.cuda_graphs=auto"],
    "compiled": ["train.cuda_graphs=false", "train.compile=true"],
    "compiled, graphs": ["train.cuda_graphs=auto", "train.compile=true"],
}


def measure_networks(sizes: "Sizes") -> "Tables":
    """Yield milliseconds of a step, the median over epochs, and of the first epoch, which has all that is done once."""
    rows: list[dict[str, Any]] = []
    ways = {"plain": WAYS["plain"]} if sizes.small else WAYS
    networks = {name: NETWORKS[name] for name in ("mlp", "convnet")} if sizes.small else NETWORKS
    for way, words in ways.items():
        for name, (model, image, usual) in networks.items():
            batch, steps = sizes.either(usual, 8), sizes.either(STEPS, 2)
            epochs = _epochs([*model, *words], image, batch, steps, sizes.device)
            typical = 1e3 * statistics.median(epochs[SETTLED:]) / steps
            plain = next((row["step_ms"] for row in rows if row["network"] == name and row["way"] == "plain"), typical)
            row = {"network": name, "way": way, "batch": batch, "step_ms": typical, "plain_by_this": plain / typical}
            rows.append(row | {"first_epoch_s": epochs[0]})
            yield pd.DataFrame(rows), len(rows) >= 2 * len(NETWORKS)  # compiling takes minutes


def _epochs(words: list[str], image: tuple[int, int], batch: int, steps: int, device: str) -> list[float]:
    """Return the seconds of each epoch of a run on random images."""
    count = batch * steps
    channels, side = image
    random = np.random.default_rng(0)
    arrays = {
        f"{part}_{what}": random.integers(0, high, (number, *shape), dtype=np.uint8)
        for part, number in (("train", count + CLASSES), ("test", CLASSES))
        for what, high, shape in (("images", 256, (channels, side, side)), ("labels", CLASSES, ()))
    }
    for part in ("train", "test"):
        arrays[f"{part}_labels"][:CLASSES] = range(CLASSES)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        np.savez(Path(folder) / "arrays.npz", **arrays)
        common = ["data=arrays", f"data.root={folder}", "benchmark=single", f"benchmark.validation={CLASSES}"]
        common += ["strategy=naive", f"train.epochs={EPOCHS}", f"train.batch_size={batch}", "train.precision=bf16"]
        config = make_config(*common, "train.channels_last=true", f"device={device}", *words)
        sequence = load_sequence(config, choose_device(device))
        trained = stack.enter_context(contextlib.closing(Trained(config, sequence)))
        return trained.epochs_of_next_task()[0]
