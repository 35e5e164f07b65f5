"""`cl-powerprop suite`: from nothing to the table of a suite; the same command goes on where it was cut off."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cl_powerprop.documents import read_json
from cl_powerprop.errors import ConfigurationError, FileError, RunFolderError, StorageError
from cl_powerprop.files import write_file
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.output import say
from cl_powerprop.process import FAULT
from cl_powerprop.run_folder import is_free
from cl_powerprop.run_lock import RunLock
from cl_powerprop.shown import as_line
from cl_powerprop.suites.definition import Suite, load_suite
from cl_powerprop.suites.overrides import of_launcher, without_places
from cl_powerprop.suites.protocol import Entry, Protocol, entries
from cl_powerprop.suites.report import TABLE, write_report
from cl_powerprop.suites.table import recorded_rows
from cl_powerprop.torchrun import place
from cl_powerprop.tuning.study_file import check_optuna

SETTINGS = "suite.json"


def run_suite(
    name: str,
    out: Path | None = None,
    *,
    quick: bool = False,
    methods: Sequence[str] = (),
    words: Sequence[str] = (),
    jobs: int | None = None,
    together: bool = False,
    retries_failed: bool = False,
) -> int:
    """Tune, run and compare the methods of a suite; return the exit code: 1 if one of them failed.

    Args:
        name: of the suite, or a YAML file.
        out: folder of all that it makes; None for one below `runs/suites` that is named after the suite.
        quick: as small as it can be, to see that all of it works.
        methods: only these of its methods.
        words: overrides for all runs alike, and the choice of a launcher.
        jobs: trials at a time; None for as many as a multirun would run.
        together: train the reported seeds of a method in one process, as is fast on a GPU.
        retries_failed: run trials that failed before once more.

    Raises:
        UserError: for a suite, method or override that does not exist, or a folder that holds something else.
        StorageError: if something cannot be written; the same command goes on.
        Interrupted: by a signal; the same command goes on.
    """
    if place().ranks > 1:
        raise ConfigurationError("torchrun starts the processes of one run; call suite without it")
    if jobs is not None and jobs < 1:
        raise ConfigurationError(f"--jobs must be at least 1, not {jobs}")
    launcher = [word for word in words if of_launcher(word)]
    whole = load_suite(name, quick).changed([word for word in words if word not in launcher])
    suite = whole.only(methods) if methods else whole
    check_optuna()
    folder = out or Path("runs/suites", suite.name + ("-quick" if quick else ""))
    protocol = Protocol(suite, folder, launcher, jobs, together, retries_failed)
    protocol.check()
    try:
        with RunLock(folder).hold():
            before = _enter(suite, folder)
            recorded = recorded_rows(folder / TABLE, _unchanged(whole, before))
            outcomes = protocol.run()
            write_report(whole, outcomes, folder, recorded)
    except RunFolderError as error:
        raise type(error)(str(error).replace("run_dir", "--out")) from error
    except (Interrupted, StorageError) as stop:
        stop.__notes__ = ["the same command goes on"]
        raise
    return FAULT if any(outcome.reason and not outcome.refused for outcome in outcomes) else 0


def _enter(suite: Suite, folder: Path) -> dict[str, Any]:
    """Write what a folder is for, or find it to be for the same; methods may be added.

    Return what it was for before.

    Raises:
        RunFolderError: if it holds something else, or a suite of other settings.
        StorageError: if it cannot be written.
    """
    file, about = folder / SETTINGS, _about(suite)
    try:
        before = read_json(file)
    except FileNotFoundError:
        before = None
        if not is_free(folder):
            raise RunFolderError(f"{folder} holds something else than a suite; choose another --out") from None
    except (OSError, ValueError, FileError) as error:
        raise RunFolderError(f"{file} cannot be read: {error}") from error
    if before is not None:
        if not isinstance(before, dict):
            raise RunFolderError(f"{file} is damaged: it is no JSON object")
        differ = [
            f"{key} was {before[key]} and is {about[key]}"
            for key in about
            if key in before and before[key] != about[key]
        ]
        if differ:
            shown = "; ".join(differ[:3]) + (f"; and {len(differ) - 3} more" if len(differ) > 3 else "")
            raise RunFolderError(as_line(f"{folder} holds a suite of other settings: {shown}; choose another --out"))
        say(f"{folder}: goes on")
    try:
        write_file(file, (json.dumps({**(before or {}), **about}, indent=2) + "\n").encode())
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror or error}") from error
    return before or {}


def _unchanged(suite: Suite, before: Mapping[str, Any]) -> list[Entry]:
    """Return the methods that a suite still has as a folder had them before; say which it has otherwise."""
    about = _about(suite)
    known = {entry: f"{'any_budget' if entry.any_budget else 'methods'}.{entry.name}" for entry in entries(suite)}
    changed = [key for key in known.values() if key in before and before[key] != about[key]]
    for key in changed:
        say(f"{key} is another one than in {SETTINGS}; a row of it from before is left out")
    return [entry for entry, key in known.items() if key in before and key not in changed]


def _about(suite: Suite) -> dict[str, Any]:
    """Return what may not change when a suite goes on, by what messages call it."""
    about = {
        "suite": suite.name,
        "common": without_places(suite.common),
        "tuning": asdict(suite.tuning),
        "seeds": list(suite.seeds),
    }
    methods = {
        f"{section}.{name}": asdict(method)
        for section in ("methods", "any_budget")
        for name, method in getattr(suite, section).items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(about | methods))
    return plain
