"""Which jobs of a multirun are left to do, and in which folders: an earlier call of the same may have done some."""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import pickle
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cl_powerprop.config import MOST_SEEDS
from cl_powerprop.documents import read_json
from cl_powerprop.errors import ConfigurationError, FileError
from cl_powerprop.launching.job_list import COMPLETE, FAILED, WAITING, ListedJob
from cl_powerprop.launching.objective import validation_accuracy
from cl_powerprop.privacy import redact_options
from cl_powerprop.run_folder import seed_folder

# Sections and options in which a run that goes on need not be the one that was begun.
_NO_MATTER = ("hydra", "run_dir", "resume", "progress", "logger", "checkpoint", "references_dir")


@dataclass(frozen=True)
class PlannedJob:
    """A job of a multirun.

    Attributes:
        listed: what the list has of it.
        path: of its folder.
        state: complete, failed, or waiting for what was not begun or was cut off.
        is_listed: it belongs into the list; not if its number is another job's, as by ``resume=never``.
        pickled: its composed config.
        runs: folders of its runs, one for each seed that is trained together.
    """

    listed: ListedJob
    path: Path
    state: str
    is_listed: bool
    pickled: bytes
    runs: Sequence[Path]

    def objective(self) -> float | None:
        """Return the validation accuracy that a complete job has reached, as the job itself did; else None."""
        return validation_accuracy([_record(folder) for folder in self.runs]) if self.state == COMPLETE else None


def plan(
    composed: Iterator[tuple[DictConfig, str]],
    first: int,
    count: int,
    sweep: Path,
    listed: dict[int, ListedJob],
    resumes: bool,
) -> list[PlannedJob]:
    """Return the jobs with their numbers: that under which the list has a job's config, or else one that is free.

    Args:
        composed: config and name of each job.
        first: number of the first job, as Hydra counts.
        count: how many jobs there are.
        sweep: folder of the multirun.
        listed: the jobs in its list.
        resumes: earlier runs count; otherwise each job has the number that Hydra gives it.

    Raises:
        ConfigurationError: if two jobs would train the same seed of the same settings, together with others.
    """
    known: dict[str, list[int]] = {}
    owners: dict[str, set[str]] = {}  # hashes of the configs of each folder's jobs
    for number, job in sorted(listed.items()) if resumes else ():
        known.setdefault(job.config, []).append(number)
        owners.setdefault(job.folder, set()).add(job.config)
    spare = itertools.count(max([*listed, first + count - 1]) + 1)
    trained: dict[str, dict[int, str]] = {}  # by which job, by settings and seed
    planned = []
    for index, (config, name) in enumerate(composed):
        key = config_hash(config)
        _enter_seeds(trained, config, name)
        number = _number(config, sweep, first + index, known.get(key, []), listed, spare, resumes)
        path = _settle(config, number)
        job = ListedJob(number, key, name, os.path.relpath(path, sweep))
        runs = _runs(path, config)
        # What the list does not have as this job's alone may be a run with other settings: the job itself finds out.
        is_own = number in listed and owners.get(job.folder) == {key}
        state = combined([status_in(run) for run in runs], listed[number]) if is_own else WAITING
        planned.append(PlannedJob(job, path, state, resumes or number not in listed, pickle.dumps(config), runs))
    return planned


def _enter_seeds(trained: dict[str, dict[int, str]], config: DictConfig, name: str) -> None:
    """Enter which seeds a job trains together.

    Raises:
        ConfigurationError: if another job of the same settings trains one of them.
    """
    seeds = _seeds(config)
    if not seeds:
        return
    others = trained.setdefault(config_hash(config, but=("seed",)), {})
    for seed in seeds:
        if seed in others:
            count, first = len(seeds), min(others)
            raise ConfigurationError(
                f"{others[seed]} and {name} would both train seed {seed}: seeds_together={count} trains the seeds "
                f"{seeds[0]} to {seeds[-1]}; sweep in steps of {count}: seed={first},{first + count}"
            )
        others[seed] = name


def _number(
    config: DictConfig,
    sweep: Path,
    usual: int,
    known: list[int],
    listed: dict[int, ListedJob],
    spare: Iterator[int],
    resumes: bool,
) -> int:
    if not resumes:
        return usual
    for number in known:
        if _settle(config, number) == listed[number].path(sweep):
            known.remove(number)
            return number
    if usual not in listed:
        return usual
    for number in spare:
        path = _settle(config, number)
        if not path.exists() or path == _settle(config, usual):  # the folder does not depend on the number
            return number
    raise AssertionError("there is always another number")


def config_hash(config: DictConfig, but: Collection[str] = ()) -> str:
    """Return the same for two composed configs if one run can go on with the other; 0.1 and 1e-1 are the same.

    What looks like a secret is hashed so slowly that it cannot be guessed.

    Args:
        config: of a job.
        but: options that are left out.
    """
    kept = {str(key): _resolved(config, str(key)) for key in config if key not in _NO_MATTER and key not in but}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {key: value for key, value in kept["data"].items() if key != "root"}
    texts = [_hashable(key, json.dumps(value, sort_keys=True, default=str)) for key, value in sorted(kept.items())]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=256)
def _hashable(key: str, text: str) -> str:
    """Return what is hashed of a section or option; most are the same in many jobs."""
    return json.dumps({key: _numbers_alike(redact_options(json.loads(text), key))})


def _resolved(config: DictConfig, key: str) -> Any:
    """Return a section or option with the values that it takes from elsewhere, as from the environment."""
    with contextlib.suppress(OmegaConfBaseException):  # the job itself says what is missing
        value = config[key]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    unresolved: Any = OmegaConf.to_container(config, resolve=False)
    return unresolved[key]


def _numbers_alike(values: Any) -> Any:
    """Return nested values in which 1 is 1.0."""
    match values:
        case dict():
            return {str(key): _numbers_alike(value) for key, value in values.items()}
        case list():
            return [_numbers_alike(value) for value in values]
        case int() if not isinstance(values, bool) and abs(values) < 2**53:
            return float(values)
    return values


def _settle(config: DictConfig, number: int) -> Path:
    """Give a job its number, and return the folder that follows from it, as Hydra will."""
    with open_dict(config):
        config.hydra.job.id = f"{config.hydra.job.name}_{number}"
        config.hydra.job.num = number
    HydraConfig.instance().cfg = config  # which is what set_config does, by a copy
    return Path(str(OmegaConf.select(config, "hydra.sweep.dir")), str(OmegaConf.select(config, "hydra.sweep.subdir")))


def _runs(path: Path, config: DictConfig) -> list[Path]:
    """Return the folders of a job's runs; a mistake in what says how many there are is the job's own to tell."""
    return [seed_folder(path, seed) for seed in _seeds(config)] or [path]


def _seeds(config: DictConfig) -> range:
    """Return the seeds that a job trains together; none if it trains one."""
    together, seed = OmegaConf.select(config, "seeds_together"), OmegaConf.select(config, "seed")
    if type(together) is not int or type(seed) is not int or not 1 < together <= MOST_SEEDS:
        return range(0)
    return range(seed, seed + together)


def combined(statuses: Sequence[str], listed: ListedJob | None) -> str:
    """Return a job's state from those of its runs, and from the list, which knows of what did not get as far."""
    if all(status == COMPLETE for status in statuses):
        return COMPLETE
    if FAILED in statuses or (listed is not None and listed.state == FAILED):
        return FAILED
    return WAITING


def status_in(folder: Path) -> str:
    """Return the status of the run in a folder; nothing if there is none that can be read."""
    return str(_record(folder).get("status", ""))


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError, FileError):
        return {}
    return record if isinstance(record, dict) else {}
