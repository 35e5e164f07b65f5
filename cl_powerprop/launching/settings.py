"""Checks of the settings of `hydra.launcher`."""

from typing import Any

from cl_powerprop.errors import ConfigurationError


def check_whole(option: str, value: Any, least: int, special: int | None = None) -> None:
    """Refuse what is no whole number of at least some size.

    Args:
        option: of `hydra.launcher`.
        value: given.
        least: allowed.
        special: a smaller value with a meaning of its own, or None.

    Raises:
        ConfigurationError: naming the option.
    """
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or (value < least and (special is None or value != special)):
        or_special = "" if special is None else f", or {special}"
        raise ConfigurationError(
            f"hydra.launcher.{option} must be a whole number of at least {least}{or_special}, not {value!r}"
        )


def check_number(option: str, value: Any, least: float) -> None:
    """Refuse what is no number of at least some size.

    Raises:
        ConfigurationError: naming the option.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < float("inf"):
        raise ConfigurationError(f"hydra.launcher.{option} must be a number of at least {least:g}, not {value!r}")


def check_text(option: str, value: Any) -> None:
    """Refuse what is no text.

    Raises:
        ConfigurationError: naming the option.
    """
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ConfigurationError(f"hydra.launcher.{option} must be a text of one line, not {value!r}")
