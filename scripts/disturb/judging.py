"""Whether a run that was disturbed has left what the undisturbed one has."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

_RECORD = ("status", "n_tasks", "trained_tasks", "metrics", "zero_forgetting_verified", "searches", "target_sparsity")
_OWN = ("events.out.tfevents",)  # names that hold a time


def differences(run: Path, undisturbed: Path) -> list[str]:
    """Return in what a run folder differs from that of the undisturbed run; times and ids may.

    All files must be there and no others, every CSV file with the same bytes apart from its column `run_id`, the same
    bits in `model.safetensors`, the same config, and the same results in `run.json`.
    """
    if not run.is_dir():
        return ["there is no run folder"]
    found, expected = _names(run), _names(undisturbed)
    problems = [f"{name} is missing" for name in sorted(expected - found)]
    problems += [f"{name} is left over" for name in sorted(found - expected)]
    for name in sorted(found & expected):
        if not _same(run / name, undisturbed / name):
            problems.append(f"{name} differs")
    return problems


def status(run: Path) -> str | None:
    """Return the status in `run.json`, in a multirun that of its first job that is not complete; None without one."""
    found = [_json(file) for file in sorted((*run.glob("run.json"), *run.glob("*/run.json")))]
    statuses = [content.get("status") if isinstance(content, dict) else None for content in found]
    return next((each for each in statuses if each != "complete"), "complete" if statuses else None)


def _names(run: Path) -> set[str]:
    """Return what lies in a run folder, with one name for all files whose own has a time in it."""
    names = {str(path.relative_to(run)) for path in run.rglob("*")}
    return {next((own for own in _OWN if name.startswith(own)), name) for name in names}


def _same(file: Path, other: Path) -> bool:
    if file.suffix == ".csv":
        return bool(_without_id(file) == _without_id(other))
    if file.name == "run.json":
        records = [_json(path) or {} for path in (file, other)]
        return all(records[0].get(key) == records[1].get(key) for key in _RECORD)
    if file.suffix == ".safetensors":
        return bool(_tensors(file) == _tensors(other))
    return file.name in _OWN or file.is_dir() or file.read_bytes() == other.read_bytes()


def _without_id(file: Path) -> Any:
    """Return a CSV file's rows without the column `run_id`; all bytes if it has none."""
    content = file.read_bytes()
    if not content.startswith(b"run_id,"):
        return content
    rows = list(csv.reader(io.StringIO(content.decode(errors="replace"), newline="")))
    return [row[1:] for row in rows], content.endswith(b"\n"), content.count(b"\n")


def _tensors(file: Path) -> Any:
    """Return name, type, shape and bytes of each tensor; None for a damaged file."""
    try:
        with safe_open(file, "np") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            return {name: (str(each.dtype), each.shape, each.tobytes()) for name, each in tensors.items()}
    except (SafetensorError, OSError):
        return None


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
