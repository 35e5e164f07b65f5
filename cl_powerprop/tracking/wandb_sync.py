"""`cl-powerprop sync`: upload the W&B runs on disk that are not uploaded yet."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track

from cl_powerprop.errors import UserError
from cl_powerprop.files import is_file
from cl_powerprop.tracking.wandb_account import UPLOADED, open_account

_AT_A_TIME = 4
_STILL_WRITTEN = 60  # seconds; a run that is going on writes system metrics more often than that


@dataclass
class Synced:
    """Result of an upload: the files of W&B runs by outcome, and the reasons why some failed."""

    uploaded: list[Path] = field(default_factory=list)
    uploaded_before: list[Path] = field(default_factory=list)
    still_running: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


def sync(
    folder: Path,
    project: str | None = None,
    entity: str | None = None,
    dry_run: bool = False,
    timeout: float = 3600,
) -> Synced:
    """Upload the W&B runs at or below a folder that are not uploaded yet: offline runs, and interrupted online runs.

    Args:
        folder: the folder to search for W&B's files.
        project: upload to this project instead of each run's own.
        entity: upload to this user or team instead of each run's own.
        dry_run: return what would be uploaded, without uploading it.
        timeout: time limit for the upload of one run, in seconds.

    Raises:
        UserError: for a folder without W&B runs, or if the account cannot be used.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the one that holds W&B's files (logger.wandb.dir)")
    files = sorted(_find(folder))
    if not files:
        raise UserError(f"{folder} holds no W&B run: no run-*.wandb was found at or below it")
    synced = Synced()
    waiting = []
    for file in files:
        if _is_uploaded(file):
            synced.uploaded_before.append(file)
        elif _is_running(file):
            synced.still_running.append(file)
        else:
            waiting.append(file)
    if dry_run or not waiting:
        synced.uploaded = waiting
        return synced
    open_account()  # W&B's own command would try for hours to reach a server that does not answer
    # Each upload has its own service, so that one that is given up does not end the others.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    options = [*(["--project", project] if project else []), *(["--entity", entity] if entity else [])]
    fragments: dict[str, list[Path]] = {}
    for file in waiting:  # a resumed run has several files, which must be uploaded in order
        fragments.setdefault(file.name, []).append(file)
    console = Console(stderr=True)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        reasons = pool.map(lambda files: _upload(files, options, environment, timeout), fragments.values())
        shown = track(reasons, "uploading", len(fragments), console=console, disable=not console.is_terminal)
        for files, reason in zip(fragments.values(), shown, strict=True):
            for file in files:
                if _is_uploaded(file):
                    synced.uploaded.append(file)
                else:
                    synced.failed[file] = reason
    return synced


def _find(folder: Path) -> Iterator[Path]:
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not (Path(parent) / name).is_symlink()]
        files = (Path(parent) / name for name in names if name.startswith("run-") and name.endswith(".wandb"))
        yield from (file for file in files if is_file(file))


def _is_uploaded(file: Path) -> bool:
    """Return whether W&B has marked the file as uploaded, and it has not changed since, as by a resumed run."""
    mark = file.with_name(file.name + UPLOADED)
    try:
        return mark.stat().st_mtime >= file.stat().st_mtime
    except OSError:
        return False


def _is_running(file: Path) -> bool:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    try:
        if time.time() - file.stat().st_mtime > _STILL_WRITTEN:
            return False
        shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_STILL_WRITTEN)
        return bool(json.loads(shown.stdout)["state"] == "running")
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError, RecursionError):
        return False


def _upload(files: Sequence[Path], options: Sequence[str], environment: Mapping[str, str], timeout: float) -> str:
    """Upload the files of one run with W&B's own command, which marks uploaded files; return its last message.

    One command for all runs would stop at the first damaged file.
    """
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", "--include-synced", *options]
    command += map(os.path.abspath, files)  # a name that begins with - is no option
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"not finished within {timeout:g} s, and given up"
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in said if "error" in line.lower()]
    return (errors or said or ["nothing"])[-1].removeprefix("wandb: ")
