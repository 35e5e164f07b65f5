"""`cl-powerprop resume`: continue interrupted runs from their last checkpoint: after a task, or an epoch of one."""

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cl_powerprop.analysis.finding import find_run_folders
from cl_powerprop.analysis.summary import print_runs
from cl_powerprop.config import load_config
from cl_powerprop.errors import DivergedError, RankError, RunFolderError, UserError
from cl_powerprop.process import FAULT, complain
from cl_powerprop.torchrun import place

_LOCK = ".resume.lock"


def resume(paths: Iterable[str | os.PathLike[str]], root: str | None = None, force: bool = False) -> list[str]:
    """Finish all incomplete runs at or below the given paths, one after the other, and print them as a table.

    A resumed run ends with the same numbers as one that was never interrupted.

    Args:
        paths: run folders, or folders that hold them.
        root: folder of the data; None for the one in each run's config.
        force: also resume runs that may still be running: on another machine, or with a process id that is in use.

    Returns:
        One line for each run that could not be finished.

    Raises:
        UserError: if there is no run.
    """
    problems: list[str] = []
    finished = []
    folders = find_run_folders(paths, problems)
    if place().ranks > 1 and len(folders) != 1:
        raise RunFolderError(f"torchrun resumes one run at a time, not {len(folders)}: give its folder")
    for folder in folders:
        try:
            content = _read(folder)
            if content["status"] == "complete":
                print(f"{folder}: complete")
                continue
            if not place().is_first:
                _go_on(folder, root)
                continue
            with FileLock(folder / _LOCK, timeout=0):
                _refuse_if_running(folder, content, force)
                _go_on(folder, root)
            finished.append(folder)
        except Timeout:
            problems.append(f"{folder}: it is being resumed already")
        except (UserError, DivergedError, RankError) as error:
            problems.append(f"{folder}: {error}")
        except (KeyError, RuntimeError, OSError) as error:  # files of different runs, or a full disk, for example
            problems.append(f"{folder}: {type(error).__name__}: {' '.join(str(error).split())}")
        else:
            (folder / _LOCK).unlink(missing_ok=True)
    if finished:
        print_runs(finished)
    for problem in problems:
        complain(problem, FAULT)
    return problems


def _go_on(folder: Path, root: str | None) -> None:
    from cl_powerprop.checkpoint import read_checkpoint
    from cl_powerprop.experiment import run

    config = load_config(folder)
    if root is not None:
        config.data.root = root
    checkpoint = read_checkpoint(folder)
    before = checkpoint.results["run"]
    within = f" and {checkpoint.task['epochs']} epochs of the next" if checkpoint.task else ""
    print(f"{folder}: going on after {before['trained_tasks']} of {before['n_tasks']} tasks{within}")
    run(config, folder, checkpoint=checkpoint)


def _read(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return {"status": content["status"], "host": content.get("host"), "process": content.get("process")}
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"run.json is damaged ({type(error).__name__}: {error})") from error


def _refuse_if_running(folder: Path, content: dict[str, Any], force: bool) -> None:
    if content["status"] != "running" or force:
        return
    if content["host"] != platform.node():
        raise RunFolderError(f"it was running on {content['host']}; if it is not any more, add --force")
    if content["process"] and _is_alive(content["process"]):
        raise RunFolderError(
            f"it is still running, as process {content['process']}; if that is another one, add --force"
        )


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists, and belongs to another user
        return True
    return True
