"""What engines call in tests, in place of a run."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from cl_powerprop import interrupts
from cl_powerprop.interrupts import Interrupted, listening


def call(what: str, folder: str, before: int) -> tuple[str, int]:
    Path(folder, f"{what}-{before}").touch()
    if what == "dies" or (what == "dies once" and not before):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "is stopped once" and not before:
        with listening():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
    return what, before


def wait_for_a_signal(folder: str, before: int) -> None:
    """Note in the folder that it was told to stop."""
    with listening():
        Path(folder, "begun").touch()
        try:
            while True:
                time.sleep(0.05)
                interrupts.check()
        except Interrupted:
            Path(folder, "stopped").touch()
            raise


def job(config: Any) -> float:
    """A job of Hydra: that of seed 13 fails."""
    if config.seed == 13:
        raise ValueError("of its own")
    return float(config.seed)
