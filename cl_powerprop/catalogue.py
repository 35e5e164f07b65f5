"""What there is to choose: our parts as `conf/` describes them, and those that others have registered."""

from pathlib import Path

from cl_powerprop.registry import CONF, PACKAGES, metrics, others

GROUPS = ("benchmark", "data", "model", "strategy", "optimizer", "logger", "experiment")


def catalogue() -> dict[str, dict[str, str]]:
    """Return, for each config group, its choices with one line each, and the metrics of a run."""
    chosen = {group: _ours(group) | _of_others(group) for group in GROUPS}
    return chosen | {"metric": {name: metric.label for name, metric in metrics().items()}}


def _ours(group: str) -> dict[str, str]:
    """Describe our choices; a file without a description is another name for one."""
    described = {_name(path, group): _describe(path) for path in _files(group)}
    return {name: description for name, description in described.items() if description}


def _of_others(group: str) -> dict[str, str]:
    if group not in PACKAGES:
        return {}
    return {part.name: f"{part.description} ({part.origin})".strip() for part in others(group)}


def _files(group: str) -> list[Path]:
    return sorted(path for path in (CONF / group).rglob("*.yaml") if not path.name.startswith("_"))


def _name(path: Path, group: str) -> str:
    return path.relative_to(CONF / group).with_suffix("").as_posix()


def _describe(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        comments = (line.removeprefix("#").strip() for line in file if line.startswith("#"))
        return next((line for line in comments if not line.startswith("@package")), "")
