"""The configs of the jobs of a multirun, composed by Hydra once for all jobs that differ in plain values only.

Hydra composes each anew, twice, which takes longer than to start the job. What differs between two jobs that override
the same keys, and choose the same parts, is only what Hydra does last: it puts the values in.
"""

import functools
import pickle
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

_compose_job = ConfigLoaderImpl.load_sweep_config


class _Composed:
    """What was composed for the jobs of the last multirun, by what they have in common."""

    def __init__(self) -> None:
        self.master: DictConfig | None = None
        self.configs: dict[tuple[str, ...], bytes] = {}

    def of(self, master: DictConfig) -> dict[tuple[str, ...], bytes]:
        if self.master is not master:
            self.master, self.configs = master, {}
        return self.configs


_composed = _Composed()


def _load_sweep_config(loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
    """Return the config of a job: that of another job with other values, where that is the same."""
    overrides = [parsed(word) for word in sweep_overrides]
    plain = [override for override in overrides if _is_plain(loader, override)]
    common = tuple(override.key_or_group if override in plain else f"={override.input_line}" for override in overrides)
    known = _composed.of(master_config)
    if common not in known:
        config: DictConfig = _compose_job(loader, master_config, sweep_overrides)
        known[common] = pickle.dumps(config)  # which is copied faster than the config itself
        return config
    config = pickle.loads(known[common])
    ConfigLoaderImpl._apply_overrides_to_config(plain, config)
    of_tasks = [override for override in overrides if not override.is_hydra_override()]
    job: Any = config.hydra.job
    job.override_dirname = get_overrides_dirname(overrides=of_tasks, **job.config.override_dirname)
    config.hydra.overrides.task = [override.input_line for override in of_tasks]
    OmegaConf.copy_cache(from_config=master_config, to_config=config)
    return config


@functools.lru_cache(maxsize=4096)
def parsed(word: str) -> Override:
    """Return an override; most are the same in many jobs.

    Raises:
        HydraException: if it cannot be read.
    """
    (override,) = OverridesParser.create().parse_overrides([word])
    return override


def _is_plain(loader: ConfigLoaderImpl, override: Override) -> bool:
    """Return whether an override only changes the value of an option."""
    changes = not (override.is_add() or override.is_delete() or override.is_force_add() or override.is_hydra_override())
    is_scalar = isinstance(override.value(), str | bool | int | float | None)
    return (
        changes and is_scalar and override.package is None and not loader.repository.group_exists(override.key_or_group)
    )


def compose_once() -> None:
    """Make Hydra compose so, in this process."""
    ConfigLoaderImpl.load_sweep_config = _load_sweep_config
