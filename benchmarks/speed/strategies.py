"""Time of an epoch of each strategy, as a multiple of a bare loop: interleaved runs, medians of the ratios."""

import contextlib
import statistics

import pandas as pd
import torch
from common import Trained, bare_epoch, make_config

from cl_powerprop.assemble import choose_device, load_sequence
from cl_powerprop.tasks import TaskSequence

REPEATS = 7
VARIANTS = {
    "naive": ["strategy=naive", "model.alpha=1", "model.init_scale=1", "model.heads=shared", "optimizer.lr=0.1"],
    "naive, alpha 2": ["strategy=naive", "model.heads=shared", "optimizer.lr=0.1"],
    "packnet": ["strategy=packnet", "strategy.retrain_epochs=1", "model.alpha=1", "optimizer.lr=0.1"],
    "epn, alpha 2": ["strategy=epn", "strategy.retrain_epochs=1"],
}
# Only ten validation images, so that an epoch has nearly all of the training data; the bare loop clips no gradient.
COMMON = [
    *("train.epochs=2", "train.batch_size=128", "train.clip_norm=null"),
    *("optimizer.weight_decay=1e-4", "benchmark.validation=10"),
]


def measure(data: str) -> pd.DataFrame:
    """Return one row per strategy: seconds per epoch, and ratios to the bare loop of the epochs and the whole task."""
    overrides = [f"data={data}", f"benchmark.n_tasks={REPEATS + 1}", *COMMON]
    configs = {name: make_config(*overrides, *extra) for name, extra in VARIANTS.items()}
    first = configs["naive"]
    torch.set_num_threads(first.train.threads)
    device = choose_device(first.device)
    sequence = load_sequence(first, device)
    with contextlib.ExitStack() as stack:
        trained = {
            name: stack.enter_context(contextlib.closing(Trained(config, sequence))) for name, config in configs.items()
        }
        return _compare(sequence, trained, first.train.batch_size)


def _compare(sequence: TaskSequence, trained: dict[str, Trained], batch_size: int) -> pd.DataFrame:

    bare: list[float] = []
    epochs: dict[str, list[float]] = {name: [] for name in trained}
    tasks: dict[str, list[float]] = {name: [] for name in trained}
    for repeat in range(REPEATS + 1):  # the first task warms up; nothing is frozen in it
        split = sequence.tasks[repeat].train
        images = split.images()
        reference = statistics.median(bare_epoch(images, split.labels, batch_size) for _ in range(3))
        for name, strategy in trained.items():
            epoch, whole = strategy.train_next_task()
            if repeat:
                epochs[name].append(epoch / reference)
                tasks[name].append(whole / reference)
        if repeat:
            bare.append(reference)

    seconds = statistics.median(bare)
    rows = [{"strategy": "bare loop", "seconds_an_epoch": seconds, "epoch": 1.0, "task": 1.0}]
    for name in trained:
        ratio = statistics.median(epochs[name])
        row = {"strategy": name, "seconds_an_epoch": ratio * seconds, "epoch": ratio}
        rows.append(row | {"task": statistics.median(tasks[name])})
    return pd.DataFrame(rows).assign(images=len(sequence.tasks[0].train))
