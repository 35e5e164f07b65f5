"""Learning rates, which a recorded step reads from the device."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer


def hold_rates(optimizer: Optimizer) -> None:
    """Hold the rates of a fused optimizer on its GPU; on a CPU they stay numbers.

    Its steps can be recorded then, and give the same numbers whether they are or not.
    """
    held: dict[float, Tensor] = {}
    for group in optimizer.param_groups:
        device = group["params"][0].device
        if group.get("fused") and device.type == "cuda":
            value = float(group["lr"])
            # Groups of one rate share a tensor, which is set by one kernel.
            group["lr"] = held.setdefault(value, torch.tensor(value, device=device))
            if "capturable" in group:
                group["capturable"] = True
                # torch would warn of the steps that come before a recording.
                optimizer.__dict__["_warned_capturable_if_run_uncaptured"] = True


def set_rates(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Set the rate of each parameter group, where it is held."""
    done: dict[int, float] = {}
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        held = group["lr"]
        if not isinstance(held, Tensor):
            group["lr"] = rate
        elif done.get(id(held)) != rate:
            held.fill_(rate)
            done[id(held)] = rate
