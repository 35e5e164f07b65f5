"""From overrides to a config, as the command composes it."""

import functools
import pickle
from collections.abc import Sequence
from dataclasses import asdict, fields

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from cl_powerprop.config import GROUPS, RunConfig, RunOptions, parse
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.explanations import explain_composition_error
from cl_powerprop.naming import Row, against, flat
from cl_powerprop.overrides import prepare
from cl_powerprop.registry import CONF, PACKAGES, Part, others

_OPTIONS = {option.name for option in fields(RunOptions)}


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """Return the config that `cl-powerprop run OVERRIDES` would run.

    Raises:
        ConfigurationError: for an override that does not fit.
    """
    words = prepare(overrides)
    before = GlobalHydra.instance().hydra
    try:
        GlobalHydra.instance().clear()
        with initialize_config_module("cl_powerprop.conf", version_base="1.3"):
            return parse(_composed(words))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(explain_composition_error(error)) from error
    finally:
        GlobalHydra.instance().hydra = before


def _composed(words: Sequence[str]) -> DictConfig:
    """Return Hydra's config: that of the chosen parts, with the values of options put in, as Hydra does last."""
    overrides = OverridesParser.create().parse_overrides(list(words))
    chosen = tuple(word for word, override in zip(words, overrides, strict=True) if not _is_value(override))
    config: DictConfig = pickle.loads(_chosen(chosen, tuple(part for group in PACKAGES for part in others(group))))
    ConfigLoaderImpl._apply_overrides_to_config(list(filter(_is_value, overrides)), config)
    return config


@functools.lru_cache(maxsize=64)
def _chosen(words: tuple[str, ...], parts: tuple[Part, ...]) -> bytes:
    """Return what Hydra composes of choices of parts, as it is copied fastest.

    Args:
        words: the overrides that choose.
        parts: those from outside, which may be other ones under the same names.
    """
    return pickle.dumps(hydra_compose("run", list(words)))


def _is_value(override: Override) -> bool:
    """Return whether an override only changes, adds or removes an option, and chooses no part."""
    key = override.key_or_group
    is_elsewhere = override.is_hydra_override() or override.is_sweep_override() or override.package is not None
    return not is_elsewhere and ("." in key or key in _OPTIONS)


def naming_row(config: RunConfig) -> Row:
    """Return what a run of the config is named by."""
    values = asdict(config)
    facts = {"alpha": config.model.alpha, **config.sparsity.facts()}
    return {**dict(flat(values)), **facts, **{group: values[group]["name"] for group in GROUPS}}


def group_name(config: RunConfig) -> str:
    """Return the name of all runs that differ from this one in the seed only, as in "epn, alpha 1, lr 0.1".

    It says what differs from the defaults of the parts that the config names: a dashboard knows no other run to
    compare this one with. Two runs have the same name if and only if they have the same settings.
    """
    row = naming_row(config)
    try:
        default = naming_row(compose([f"{group}={row[group]}" for group in GROUPS]))
    except ConfigurationError:  # a part from outside, of which something must be given
        default = {}
    listed = yaml.safe_load((CONF / "run.yaml").read_text(encoding="utf-8"))["defaults"]
    usual = {group: name for entry in listed if isinstance(entry, dict) for group, name in entry.items()}
    return against(row, {**default, **{group: usual[group] for group in GROUPS}, "controller": None})
