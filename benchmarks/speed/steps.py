"""A profile of the training step: the operations that take its time, in the bare loop and in each strategy."""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from common import Trained, bare_epoch, make_config
from strategies import COMMON, VARIANTS
from torch.profiler import ProfilerActivity, profile

from cl_powerprop.assemble import choose_device, load_sequence

MOST = 8


def measure(data: str) -> pd.DataFrame:
    """Return, by strategy, the operations that take most of the time of training a task, as shares of that time.

    The time outside all operations is Python's: Avalanche's loop, autograd's bookkeeping, the plugins.
    """
    rows = []
    for name in ("bare loop", *VARIANTS):
        config = make_config(f"data={data}", "benchmark.n_tasks=2", *COMMON, *VARIANTS.get(name, []))
        torch.set_num_threads(config.train.threads)
        device = choose_device(config.device)
        sequence = load_sequence(config, device)
        split = sequence.tasks[0].train
        with contextlib.ExitStack() as stack:
            train: Callable[[], Any]
            if name == "bare loop":
                train = functools.partial(bare_epoch, split.images(), split.labels, config.train.batch_size)
            else:
                train = stack.enter_context(contextlib.closing(Trained(config, sequence))).train_next_task
            train()
            start = time.perf_counter()
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                train()
            wall = 1e6 * (time.perf_counter() - start)
        events = sorted(profiler.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
        shares = {event.key: event.self_cpu_time_total / wall for event in events}
        shown = dict(list(shares.items())[:MOST])
        shown["other operations"] = sum(shares.values()) - sum(shown.values())
        shown["Python around them"] = max(0.0, 1.0 - sum(shares.values()))
        rows += [{"strategy": name, "operation": operation, "share": share} for operation, share in shown.items()]
    return pd.DataFrame(rows)
