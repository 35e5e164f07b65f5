"""`run.json` and `config.yaml` of a run folder, each value checked, so that one folder cannot spoil a comparison."""

import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cl_powerprop.analysis.run_tables import LONGEST_NAME, reason_of
from cl_powerprop.documents import LARGEST_YAML, parse_yaml, read_json
from cl_powerprop.errors import RunFolderError
from cl_powerprop.files import read_file
from cl_powerprop.record import RESERVED
from cl_powerprop.run_folder import SCHEMA_VERSION
from cl_powerprop.shown import as_line, as_setting

_LARGEST = 1e18  # beyond any measurement; sums of squares stay finite
_MOST_TASKS = 2000  # a report of so many takes a minute and a half, and 1.2 GB
_MOST_NUMBERS = 500  # metrics of a run
_MOST_MESSAGES = 200  # of a run that are kept

# Sections of a config that the command writes, and keys by which such a config is known: a recorded run of somebody's
# own script has fewer.
_SECTIONS = ("benchmark", "model", "strategy", "optimizer", "seed")
_WRITTEN_BY_THE_COMMAND = ("defaults", "run_dir")

# Facts of run.json that the command takes from the config, and where they stand there.
_SAME = {
    **{group: (group, "name") for group in ("benchmark", "data", "strategy", "model", "optimizer")},
    **{"scenario": ("benchmark", "scenario"), "alpha": ("model", "alpha"), "seed": ("seed",)},
}

# The metrics that have limits.
_ACCURACIES = ("average_accuracy", "learning_accuracy", "average_incremental_accuracy", "min_accuracy")
_SHARES = (*_ACCURACIES, "worst_case_accuracy", "validation_accuracy", "task_identification")
_DIFFERENCES = ("average_forgetting", "backward_transfer", "forward_transfer", "intransigence", "joint_gap")
_LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_SHARES, (0.0, 1.0)),
    **dict.fromkeys(_DIFFERENCES, (-1.0, 1.0)),
    "sparsity": (0.0, 1.0),
    **dict.fromkeys(("training_flops", "inference_flops"), (0.0, _LARGEST)),
    **dict.fromkeys(("capacity_used", "total_size", "wsn_capacity"), (0.0, _LARGEST)),
    **dict.fromkeys(("dense_weights", "mask_bits", "mask_bits_stored"), (0.0, _LARGEST)),
}
_ROUNDING = 1e-6


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 0


def _is_task(value: Any) -> bool:
    return _is_count(value) and value < _MOST_TASKS


def _are_so_many_tasks(value: Any) -> bool:
    return _is_count(value) and value <= _MOST_TASKS


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_message(value: Any) -> bool:
    return isinstance(value, str)


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_message, value))


def _are_tasks(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_TASKS and all(map(_is_task, value))


def _are_numbers(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= _MOST_NUMBERS
        and all(_is_name(name) and (number is None or _is_number(number)) for name, number in value.items())
    )


def _are_times(value: Any) -> bool:
    return _are_numbers(value) and all(number is None or number >= 0 for number in value.values())


# The keys of run.json that a comparison reads, and what they hold. Those that are not needed may be null or absent.
_NEEDED = ("run_id", "status", "benchmark", "strategy", "n_tasks", "seed")
_KEYS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("run_id", "status", "benchmark", "scenario", "data", "strategy", "model", "optimizer"), _is_name),
    **dict.fromkeys(("device", "host", "git_commit", "started", "finished"), _is_name),
    **dict.fromkeys(("n_tasks", "trained_tasks"), _are_so_many_tasks),
    "seed": _is_whole,
    "alpha": _is_number,
    "controller": _is_name,
    "target_sparsity": _is_size,
    "peak_memory_mb": _is_size,
    "metrics": _are_numbers,
    "seconds": _are_times,
    "zero_forgetting_verified": _is_flag,
    "diverged_tasks": _are_tasks,
    "messages": _are_messages,
    "error": _is_message,
}


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of `run.json`; that of a task sequence is checked, and its messages are lines.

    Raises:
        RunFolderError: if it is damaged, or of another schema version.
    """
    try:
        content = read_json(folder / "run.json")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"run.json is damaged ({reason_of(error)})") from error
    if not isinstance(content, dict):
        raise RunFolderError("run.json is damaged: it is no JSON object")
    version = content.get("schema_version")
    if version is None:
        raise RunFolderError("run.json is damaged: it has no schema_version")
    if version != SCHEMA_VERSION:
        raise RunFolderError(f"schema version {_brief(version)}; this version of cl-powerprop reads {SCHEMA_VERSION}")
    if "strategy" in content:
        _check(content)
        content["messages"] = [as_line(message) for message in (content.get("messages") or [])[:_MOST_MESSAGES]]
        content["error"] = content.get("error") and as_line(content["error"])
    return content


def _check(content: Mapping[str, Any]) -> None:
    missing = [key for key in _NEEDED if content.get(key) is None]
    if missing:
        raise RunFolderError(f"run.json is damaged: it has no {', '.join(missing)}")
    for key, holds in _KEYS.items():
        if content.get(key) is not None and not holds(content[key]):
            where, wrong = _culprit(key, content[key], holds)
            raise RunFolderError(f"run.json is damaged: its {where} is {_brief(wrong)}")
    complete, n_tasks = content["status"] == "complete", content["n_tasks"]
    if n_tasks == 0:
        raise RunFolderError("run.json is damaged: its n_tasks is 0")
    trained = content.get("trained_tasks")
    if trained is not None and (trained > n_tasks or (complete and trained < n_tasks)):
        raise RunFolderError(
            f"run.json is damaged: it is {content['status']}, and {trained} of {n_tasks} tasks trained"
        )
    metrics = content.get("metrics") or {}
    if complete and all(value is None for value in metrics.values()):
        raise RunFolderError("run.json is damaged: it is complete and has no metrics")
    for name, (low, high) in _LIMITS.items():
        value = metrics.get(name)
        if value is not None and not low - _ROUNDING <= value <= high + _ROUNDING:
            raise RunFolderError(f"run.json is damaged: its {name} is {value:g}")
    if taken := RESERVED & metrics.keys():
        raise RunFolderError(f"run.json is damaged: no metric can have the name {', '.join(sorted(taken))}")


def _brief(value: Any) -> str:
    """Return a value of the wrong kind, or as much of it as fits into a message."""
    return f"{reprlib.repr(value):.60}"


def _culprit(key: str, value: Any, holds: Callable[[Any], bool]) -> tuple[str, Any]:
    """Return the key whose value is wrong, and the value: that of a single metric, if only that is wrong."""
    if isinstance(value, dict):
        for name, each in value.items():
            if _is_name(name) and not holds({name: each}):
                return f"{key}.{name}", each
    return key, value


def read_config(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `config.yaml`: mappings, lists and scalars that are safe to show.

    Args:
        folder: of the run.
        record: the content of its `run.json`.

    Raises:
        RunFolderError: if it is damaged.
    """
    try:
        content = read_file(folder / "config.yaml", LARGEST_YAML)
        loaded = _plain(parse_yaml(content))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"config.yaml cannot be read ({reason_of(error)})") from error
    if not isinstance(loaded, dict):
        raise RunFolderError("config.yaml is damaged: it is no mapping")
    if not content.endswith(b"\n"):
        raise RunFolderError("config.yaml is damaged: its last line is cut off")
    config: dict[str, Any] = loaded
    _check_whole(config, record)
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {as_setting(str(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool) or _is_number(value):
        return value
    return as_setting(str(value))


def _check_whole(config: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Refuse a config that is cut off, and a run that lacks what its config says of it: it would fit no other run."""
    absent = [section for section in _SECTIONS if section not in config]
    if absent and any(key in config for key in _WRITTEN_BY_THE_COMMAND):
        raise RunFolderError(f"config.yaml is damaged: it has no {', '.join(absent)}")
    sections = {group: config.get(group, {}) for group in ("benchmark", "data")}
    for group, section in sections.items():
        if not isinstance(section, dict):
            raise RunFolderError(f"config.yaml is damaged: its {group} is {_brief(section)}")
    said = {"data": sections["data"].get("name"), "scenario": sections["benchmark"].get("scenario")}
    missing = [key for key, value in said.items() if value is not None and record.get(key) is None]
    if missing:
        raise RunFolderError(f"run.json is damaged: it has no {', '.join(missing)}")
    if "defaults" in config:
        _check_same(config, record)


def _check_same(config: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Refuse a run of the command of which `run.json` and `config.yaml` say different things."""
    for key, place in _SAME.items():
        value: Any = config
        for name in place:
            value = value.get(name) if isinstance(value, Mapping) else None
        said = record.get(key)
        if value is not None and said is not None and _plain(said) != value:
            raise RunFolderError(
                f"run.json is damaged: its {key} is {_brief(said)}, and that of config.yaml {_brief(value)}"
            )
