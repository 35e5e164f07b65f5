"""The processes that `torchrun` starts for one run: which of them this is, and that one speaks for all.

Imports no torch.
"""

import os
import sys
import time
from dataclasses import dataclass

from cl_powerprop.errors import ConfigurationError

_PATIENCE = 10.0  # seconds


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


class Voice:
    """What this process prints. Of several that fail together one says why; the others are silent."""

    def __init__(self) -> None:
        self._is_settled = place().is_first

    def hush(self) -> None:
        """Print nothing from now on, unless this is the first process."""
        if not place().is_first:
            sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)

    def settle(self, speaks: bool) -> None:
        """Print why the run has failed, or leave that to another process."""
        self._is_settled = True
        sys.stderr = sys.__stderr__ if speaks else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def before_complaining(self) -> None:
        """Leave it to the first process to say what is wrong, as most often the same is wrong for all of them.

        When that one ends, `torchrun` ends the others. One that is still there after a while speaks for itself.
        """
        if not self._is_settled:
            self.settle(False)  # for good, if a signal ends the wait
            time.sleep(_PATIENCE)
            self.settle(True)

    def leave_to_others(self) -> None:
        """Say nothing of a signal, which the first process gets too, unless it is settled that this one speaks."""
        if not self._is_settled:
            self.settle(False)


voice = Voice()
