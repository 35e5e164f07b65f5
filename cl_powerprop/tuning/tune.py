"""`cl-powerprop tune`: start trials until there are enough, and report what they reached."""

from collections.abc import Sequence

from cl_powerprop.errors import ConfigurationError, StorageError
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.torchrun import place
from cl_powerprop.tuning.report import write_report
from cl_powerprop.tuning.search import Search, run_searches
from cl_powerprop.tuning.study import Study


def tune(
    words: Sequence[str],
    trials: int,
    objective: str,
    jobs: int | None = None,
    prunes: bool = True,
    retries_failed: bool = False,
) -> int:
    """Run trials of the settings that some overrides leave open, until the study has so many; return the exit code.

    Args:
        words: overrides, of which some have ranges; `run_dir` is the folder of the study.
        trials: how many it is to have, those before counted.
        objective: what is tuned for, see :func:`~cl_powerprop.tuning.objectives.parse_objectives`.
        jobs: how many run at a time; None for as many as a multirun would.
        prunes: end trials after a task if they are not among the best so far.
        retries_failed: run those that failed before once more.

    Raises:
        UserError: for settings that no trial can have, a missing extra, or a folder that holds something else.
        StorageError: if something cannot be written, as on a full disk; the same command goes on.
        Interrupted: by a signal; the same command goes on.
    """
    for option, number in (("--trials", trials), ("--jobs", jobs)):
        if number is not None and number < 1:
            raise ConfigurationError(f"{option} must be at least 1, not {number}")
    if place().ranks > 1:
        raise ConfigurationError("torchrun starts the processes of one run; call tune without it")
    codes: list[int] = []

    def report(_: Search, study: Study) -> None:
        codes.append(write_report(study))

    def failed(_: Search, error: ConfigurationError) -> None:
        raise error

    try:
        run_searches([Search(words, trials, objective, prunes, retries_failed)], report, failed, jobs)
    except (Interrupted, StorageError) as stop:
        stop.add_note("the same command goes on if run_dir names its folder")
        raise
    return codes[0]
