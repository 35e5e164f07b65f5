"""The device of the networks and batches in tests marked `cuda`: the CPU, or what `pytest --device` names."""

import pytest
import torch

NAMES = ("cpu", "cuda")
_chosen = torch.device("cpu")


def choose(name: str) -> None:
    """Put what is made from now on on the device of that name.

    Raises:
        pytest.UsageError: if torch finds no GPU, or the name is another one.
    """
    global _chosen
    if name not in NAMES:
        raise pytest.UsageError(f"--device {name}: choose from: {', '.join(NAMES)}")
    if name == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: torch finds no GPU here")
    _chosen = torch.device(name)


def device() -> torch.device:
    """Return the chosen device."""
    return _chosen
