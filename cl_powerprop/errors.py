"""What can go wrong by a user's hand. The command turns each into one line and exit code 2."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake that the user can mend; the message names the choices or the fix."""


class ConfigurationError(UserError, ValueError):
    """An option whose value is impossible, alone or together with another one."""


class DataError(UserError, OSError):
    """A data set that is missing, incomplete or altered."""


class RunFolderError(UserError, OSError):
    """A run folder that exists already, or that holds no readable run."""


class DivergedError(RuntimeError):
    """Training left the numbers: the loss is no longer finite."""


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among some choices.

    Raises:
        ConfigurationError: naming the option and its choices.
    """
    if value not in choices:
        raise ConfigurationError(f"{option} must be one of {', '.join(choices)}, not {value!r}")
