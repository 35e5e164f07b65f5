"""What every process of the command shares: exit codes, and one line for each error."""

import sys

from cl_powerprop.errors import UserError
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.output import without_escapes
from cl_powerprop.torchrun import voice

FAULT, USAGE_ERROR = 1, 2

_LONGEST = 1200  # characters of an error, which may show a value of any size


def complain(message: str, code: int) -> int:
    """Print an error as one line on stderr, and return the exit code."""
    voice.before_complaining()
    print(f"cl-powerprop: error: {without_escapes(' '.join(message.split()))[:_LONGEST]}", file=sys.stderr)
    return code


def exit_code(error: BaseException) -> int:
    """Return what a command that ends with an error exits with."""
    if isinstance(error, Interrupted):
        return error.exit_code
    return USAGE_ERROR if isinstance(error, UserError) else FAULT


def leave_wandb(code: int) -> None:
    """Make sure that W&B does not keep this process from ending; Avalanche imports it in any case."""
    if "wandb" in sys.modules:
        from cl_powerprop.tracking.wandb_service import end_service

        end_service(code)
