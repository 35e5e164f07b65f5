"""The processes that `torchrun` starts for one run: which of them this is, and that one speaks for all.

Imports no torch.
"""

import os
import sys
from dataclasses import dataclass

from cl_powerprop.errors import ConfigurationError


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of its run; without `torchrun` it is the only one.

    Attributes:
        rank: its number among all of them, from 0. The first one writes the run folder.
        ranks: how many there are.
        local_rank: its number among those of its machine, which is that of its GPU.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0


def place() -> Place:
    """Return what `torchrun` has put into the environment."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if any(not os.environ.get(name, "").isdecimal() for name in names):
        return Place()
    return Place(*(int(os.environ[name]) for name in names))


def check_batch(size: int) -> None:
    """Refuse a batch that does not divide among the processes.

    Args:
        size: samples in a batch of all of them together.

    Raises:
        ConfigurationError: naming the nearest sizes that do.
    """
    ranks = place().ranks
    if size % ranks:
        below, above = size // ranks * ranks, -(-size // ranks) * ranks
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ConfigurationError(
            f"train.batch_size={size} does not divide among {ranks} processes, which train on equal parts of every "
            f"batch; use {nearest}"
        )


def hush() -> None:
    """Let all that this process prints vanish, unless it is the first one."""
    if not place().is_first:
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)


def take_the_word(speaks: bool) -> None:
    """Let this process print errors, or not: of several that fail together, one says why."""
    sys.stderr = sys.__stderr__ if speaks else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
