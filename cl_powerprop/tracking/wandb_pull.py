"""`cl-powerprop pull`: turn W&B runs back into run folders, so that `compare` works on the runs of a team."""

import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from cl_powerprop.data.fetch import download
from cl_powerprop.documents import read_json
from cl_powerprop.errors import RunFolderError, UserError
from cl_powerprop.files import is_file, sync_folder
from cl_powerprop.run_folder import COPY
from cl_powerprop.shown import as_line
from cl_powerprop.tracking.wandb_account import open_account

# Only these files are downloaded, whatever else is stored with the W&B run.
_FILES = (
    *("run.json", "config.yaml", "accuracy_matrix.csv", "curves.csv"),
    *("weights.csv", "capacity.csv", "reuse.csv", "mask_overlap.csv", "cost.csv", "sparsity.csv", "pruning.csv"),
)
_AT_A_TIME = 8
_PROJECT = re.compile(r"[^/\s]+/[^/\s]+")
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LARGEST = 2**28  # bytes of a file
_LONGEST = 600  # seconds that a file may take
_MOST_RUNS = 100_000
_MOST_FILES = 100  # of a run that are looked at
_SHOWN = 200  # characters of what the server says
_NEEDED = _FILES[:4]  # a run without masks may have no others


@dataclass
class Pulled:
    """Result of a pull: run folders that were written, those that existed already, and one line per failure."""

    written: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def pull(project: str, out: Path, quiet: bool = False) -> Pulled:
    """Write each run of a W&B project as a run folder `out/RUN_ID`; one that is there and complete is left alone.

    Args:
        project: the W&B project, as `ENTITY/PROJECT`.
        out: the folder in which run folders are written.
        quiet: show no progress.

    Raises:
        UserError: without an API key, for a project that cannot be read, or a folder that cannot be written.
    """
    if not _PROJECT.fullmatch(project):
        raise UserError(f"{project!r} is not a W&B project; name it as ENTITY/PROJECT")
    runs = _runs(project)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written: {error.strerror}") from error
    pulled = Pulled()
    console = Console(stderr=True)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        results = pool.map(lambda run: _pull_run(run, out), runs)
        shown = track(results, "pulling", len(runs), console=console, disable=quiet or not console.is_terminal)
        for what, added in shown:
            getattr(pulled, what).append(added)
    return pulled


def _runs(project: str) -> list[Any]:
    account = open_account()
    try:
        return list(islice(account.runs(project, per_page=100), _MOST_RUNS))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the runs of {project} cannot be listed: {reason}") from error


def _pull_run(run: Any, out: Path) -> tuple[str, Path | str]:
    """Pull one run; return the field of :class:`Pulled` to which its result belongs, and the result.

    What the server says of it can be of any type.
    """
    identifier = getattr(run, "id", None)
    if not isinstance(identifier, str) or not _RUN_ID.fullmatch(identifier):
        return "problems", f"{_shown(repr(identifier))} is no name for a folder, left out"
    name = f"{_shown(getattr(run, 'name', ''))} ({identifier})"
    try:
        return _pull_named(run, identifier, name, out / identifier)
    except Exception as error:  # noqa: BLE001, RUF100 (the others can still be had)
        return "problems", f"{name}: {_shown(error)}"


def _pull_named(run: Any, identifier: str, name: str, target: Path) -> tuple[str, Path | str]:
    if os.path.lexists(target):
        if target.is_symlink() or not _is_of(target, identifier):
            return "problems", f"{target} is there already and is not this W&B run's; it is left alone"
        if _status(target) == "complete" and not _missing(target):
            return "present", target
    part = Path(tempfile.mkdtemp(prefix=f".{identifier}-", dir=target.parent))
    try:
        _download(run, part)
        files = part / COPY
        if not is_file(files / "run.json"):
            reason = "it ended before its first task did, or cl-powerprop did not log it"
            return "problems", f"{name} has no run folder: {reason}"
        if _status(files) is None or not _is_of(files, identifier):
            return "problems", f"{name}: its run.json is damaged, or another run's"
        if missing := _missing(files):
            return "problems", f"{name} is not whole on the server yet: {', '.join(missing)} missing"
        if target.exists():  # an earlier pull, when the run was incomplete
            target.rename(part / "before")
        files.rename(target)
        sync_folder(target.parent)
        return "written", target
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _download(run: Any, part: Path) -> None:
    """Fetch the files of a run folder, and no others, whatever the server offers.

    Raises:
        OSError: for a file that is larger than the server says, or comes too slowly.
        UserError: for a file that is too large, or smaller than the server says.
    """
    wanted = [f"{COPY}/{name}" for name in _FILES]
    for file in islice(run.files(names=wanted, per_page=len(wanted)), _MOST_FILES):
        if file.name not in wanted:
            continue
        size = int(file.size)
        if not 0 <= size <= _LARGEST:
            raise UserError(f"{file.name} has {size:,} bytes, of at most {_LARGEST:,}")
        path = part / file.name
        path.parent.mkdir(exist_ok=True)
        # By an address that is valid for this file alone: no key is sent to where the server points.
        download(file.direct_url, path, file.name, most=size, seconds=_LONGEST)
        found = path.stat().st_size
        if found != size:
            raise UserError(f"{file.name} has {found:,} bytes, and should have {size:,}")


def _shown(value: object) -> str:
    """Return what the server says as a message can show it."""
    return as_line(str(value), _SHOWN)


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = read_json(folder / "run.json")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _status(folder: Path) -> str | None:
    """Return the status in a folder's `run.json`, None if it cannot be read."""
    status = _read(folder).get("status")
    return status if isinstance(status, str) else None


def _is_of(folder: Path, wandb_id: str) -> bool:
    """Return whether a folder holds the run that is logged in a W&B run."""
    content = _read(folder)
    logged = content.get("wandb")
    return wandb_id in (content.get("run_id"), logged.get("id") if isinstance(logged, dict) else None)


def _missing(folder: Path) -> list[str]:
    return [name for name in _NEEDED if not is_file(folder / name)]
