"""W&B's service: the process beside ours that its client hands everything to, and waits for without limit."""

import contextlib
import threading

import psutil


def end_service(exit_code: int = 0, seconds: float = 10) -> None:
    """End the W&B service of this process, if there is one, and what W&B runs are still open with it.

    Args:
        exit_code: of the W&B runs that are still open.
        seconds: that it may take; then it is killed, and what waits for it fails. What it had still to upload stays
            on disk.
    """
    import wandb

    def tear_down() -> None:
        with contextlib.suppress(Exception, SystemExit):  # W&B's ways to say that the service had been killed
            wandb.teardown(exit_code)

    ending = threading.Thread(target=tear_down, daemon=True)
    ending.start()
    ending.join(seconds)
    if ending.is_alive():
        _kill()
        ending.join(10)


def _kill() -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it ended by itself
            if child.name().startswith("wandb-core"):
                child.kill()
