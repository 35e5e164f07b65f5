"""The overrides of a suite: which are for all methods, and which each may choose."""

from collections.abc import Sequence

from cl_powerprop.errors import ConfigurationError

_OWN = (
    "seed",
    "run_dir",
    "resume",
    "seeds_together",
    "references",
    "experiment",
)  # set by the protocol, or by no suite

# Options that change no number, and that a run may go on with others of: where data is, and how runs are followed.
_PLACES = ("data.root", "data.download", "progress", "logger", "checkpoint", "save_model")


def key_of(word: str) -> str:
    """Return the option that an override sets."""
    return word.partition("=")[0].lstrip("+~")


def merged(*lists: Sequence[str]) -> tuple[str, ...]:
    """Return overrides of which each option has the last value that it is given; `~OPTION` leaves one out again."""
    last = {key_of(word): word for words in lists for word in words}
    return tuple(word for word in last.values() if not word.startswith("~"))


def without_places(words: Sequence[str]) -> list[str]:
    """Return the overrides that can change what a run measures; the others are one user's."""
    return [word for word in words if not key_of(word).startswith(_PLACES)]


def of_launcher(word: str) -> bool:
    """Return whether an override chooses, or sets up, what runs the jobs."""
    return key_of(word).startswith(("hydra/launcher", "hydra.launcher."))


def check_common(words: Sequence[str]) -> None:
    """Refuse overrides that cannot hold for all methods.

    Raises:
        ConfigurationError: naming the first one.
    """
    for word in words:
        key = key_of(word)
        if "=" not in word or word.startswith(("-", "~")):
            raise ConfigurationError(f"{word}: give OPTION=VALUE")
        if key in _OWN:
            raise ConfigurationError(f"{word}: the suite sets {key} itself; leave it out")
        if key.startswith(("hydra/", "hydra.")):
            raise ConfigurationError(f"{word}: of Hydra's settings, a suite has those of hydra/launcher only")
        if key.partition(".")[0] == "strategy":
            raise ConfigurationError(f"{word}: each method has a strategy of its own; leave it out")


def check_method(
    where: str, settings: Sequence[str], space: Sequence[str], tuning: Sequence[str], options: Sequence[str]
) -> None:
    """Refuse a method that changes what all have in common.

    Args:
        where: what a message calls it.
        settings: its overrides.
        space: its ranges.
        tuning: its overrides of trials only.
        options: options, or groups of them, that it may set.

    Raises:
        ConfigurationError: naming the override.
    """
    for word in (*settings, *space, *tuning):
        key = key_of(word)
        if key not in options and not any(key.startswith(f"{option}.") for option in options):
            raise ConfigurationError(
                f"{where}: {word} is not a method's to choose, for all are to have the same network and the same "
                f"number of steps; it may set: {', '.join(options)}"
            )
    if not any(key_of(word) == "strategy" for word in settings):
        raise ConfigurationError(f"{where} names no strategy")
    if not space:
        raise ConfigurationError(f"{where} has nothing to tune; each method has the same number of trials")
