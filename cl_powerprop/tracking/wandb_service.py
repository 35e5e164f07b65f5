"""W&B's service: a separate process that does all work of W&B's client, which waits for it without limit."""

import contextlib
import threading

import psutil


def end_service(exit_code: int = 0, seconds: float = 10) -> None:
    """End the W&B service of this process, if there is one, and with it all open W&B runs.

    Args:
        exit_code: exit code of the open W&B runs.
        seconds: time limit. After it the service is killed, and calls that wait for it fail; data that it had not
            uploaded yet stays on disk.
    """
    import wandb

    def tear_down() -> None:
        with contextlib.suppress(Exception, SystemExit):  # what W&B raises if the service was killed
            wandb.teardown(exit_code)

    ending = threading.Thread(target=tear_down, daemon=True)
    ending.start()
    ending.join(seconds)
    if ending.is_alive():
        _kill()
        ending.join(10)


def _kill() -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # the process has already ended
            if child.name().startswith("wandb-core"):
                child.kill()
