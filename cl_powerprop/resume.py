"""`cl-powerprop resume`: continue interrupted runs, each from its last checkpoint; without one, from its start."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from cl_powerprop.analysis.finding import find_run_folders
from cl_powerprop.analysis.summary import print_runs
from cl_powerprop.errors import DivergedError, RankError, RunFolderError, StorageError, UserError
from cl_powerprop.interrupts import saving
from cl_powerprop.launching.job_list import is_study
from cl_powerprop.output import say
from cl_powerprop.process import FAULT, complain
from cl_powerprop.shown import as_line, printable
from cl_powerprop.torchrun import place

log = logging.getLogger("cl_powerprop")

_FORESEEN = (UserError, StorageError, DivergedError, RankError)


def resume(paths: Iterable[str | os.PathLike[str]], root: str | None = None) -> list[str]:
    """Finish all incomplete runs at or below the given paths, one after the other, and print them as a table.

    A resumed run ends with the same numbers as one that was never interrupted.

    Args:
        paths: run folders, or folders that hold them.
        root: folder of the data; None for the one in each run's config.

    Returns:
        One line for each run that could not be finished.

    Raises:
        UserError: if there is no run.
    """
    problems: list[str] = []
    finished = []
    folders = _find(paths, problems)
    if place().ranks > 1 and len(folders) != 1:
        raise RunFolderError(f"torchrun resumes one run at a time, not {len(folders)}: give its folder")
    for folder in folders:
        try:
            if _go_on(folder, root):
                finished.append(folder)
        except Exception as error:  # noqa: BLE001, RUF100 (whatever it is, it costs no other run)
            name = "" if isinstance(error, _FORESEEN) else f"{type(error).__name__}: "
            problems.append(f"{printable(str(folder))}: {name}{as_line(str(error))}")
    if finished:
        with saving():  # they are complete
            print_runs(finished)
    for problem in problems:
        complain(problem, FAULT)
    return problems


def _find(paths: Iterable[str | os.PathLike[str]], problems: list[str]) -> list[Path]:
    """Return the run folders at or below some paths; one that was given itself may have lost its `run.json`."""
    found: dict[Path, Path] = {}
    left_out: list[str] = []
    for path in map(Path, paths):
        is_bare = not os.path.lexists(path / "run.json") and _is_begun(path)
        try:
            folders = [path] if is_bare else find_run_folders([path], left_out)
        except OSError as error:  # it costs no other one
            problems.append(str(error))
            continue
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    for line in left_out:  # links, which are not followed, say: no run that was asked for
        log.warning(line)
    if not found:
        raise RunFolderError("; ".join(problems))
    return list(found.values())


def _is_begun(folder: Path) -> bool:
    if not folder.is_dir():  # asked first: a mistyped path is answered without importing torch
        return False
    from cl_powerprop.begun import begun_in

    try:
        return begun_in(folder) is not None
    except RunFolderError:
        return False


def _go_on(folder: Path, root: str | None) -> bool:
    """Finish a run; return whether anything was left to do."""
    from cl_powerprop.begun import begun_in
    from cl_powerprop.experiment import run

    begun = begun_in(folder)
    if begun is None:
        raise RunFolderError("the folder holds no run any more")
    if begun.is_complete:
        begun.tidy()
        say(f"{printable(str(folder))}: complete")
        return False
    if begun.record.get("status") == "pruned":
        say(f"{printable(str(folder))}: pruned, and left as it is")
        return False
    if is_study(study := folder.resolve().parent):
        raise RunFolderError(f"it is a trial of {study.name}, with which the same `cl-powerprop tune` goes on")
    config = begun.config(log.warning)
    config.resume = "auto"
    if root is not None:
        config.data.root = root
    run(config, folder)
    return True
