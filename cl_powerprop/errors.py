"""What can go wrong by a user's hand. The command turns each into one line and exit code 2."""

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(Exception):
    """A mistake that the user can mend; the message names the choices or the fix."""


class ConfigurationError(UserError, ValueError):
    """An option whose value is impossible, alone or together with another one."""


class DataError(UserError, OSError):
    """A data set that is missing, incomplete or altered."""


class RunFolderError(UserError, OSError):
    """A run folder that exists already, or that holds no readable run."""


class InUseError(RunFolderError):
    """A run folder that another process is writing."""


class FileError(UserError, ValueError):
    """A file of a run folder that is none: a link, a pipe or a device, or one of impossible size."""


class StorageError(OSError):
    """A file of a run that cannot be written, as on a full disk; what was written before stays."""


class DivergedError(RuntimeError):
    """Training left the numbers: the loss is no longer finite."""


class PrunedError(RuntimeError):
    """A trial of `cl-powerprop tune` that is ended before its last task: it is not among the best so far."""


class SeedError(RuntimeError):
    """Some of the seeds that were trained together have failed.

    Attributes:
        complete: the results of the others.
    """

    def __init__(self, message: str, complete: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.complete = complete


class RankError(RuntimeError):
    """Another one of the processes that train a run together has failed, or is gone."""


class ProcessDiedError(RuntimeError):
    """The process of a job has died, as where memory runs out."""


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among some choices.

    Raises:
        ConfigurationError: naming the option and its choices.
    """
    if value not in choices:
        raise ConfigurationError(f"{option} must be one of {', '.join(choices)}, not {reprlib.repr(value)}")


def at_least(option: str, value: float, least: float) -> None:
    """Refuse a number that is too small, infinite or none.

    Raises:
        ConfigurationError: naming the option.
    """
    if not least <= value < float("inf"):
        raise ConfigurationError(f"{option} must be at least {least}, not {value}")


def check_object(option: str, value: object) -> None:
    """Refuse a class where one of its objects is needed.

    Raises:
        ConfigurationError: showing how to make one.
    """
    if isinstance(value, type):
        raise ConfigurationError(f"{option} must be a name or an object, not a class; write {value.__name__}()")


def unknown_option(key: str, known: Sequence[str]) -> str:
    """Say in one line that there is no such option, and which there are."""
    named = [option for option in known if option != "name"]
    near = difflib.get_close_matches(key.rpartition(".")[2], named, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown option {key!r}; {hint}choose from: {', '.join(named) or 'none, there are no options'}"


def unknown_choice(group: str, name: str, known: Iterable[str]) -> str:
    """Say in one line that a config group has no such choice, and which it has."""
    return (
        f"unknown {group} {name!r}; choose from: {', '.join(sorted(known))}; "
        "one from outside needs cl-powerprop --import MODULE"
    )
