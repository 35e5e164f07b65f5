"""From overrides to a config, as the command composes it."""

from collections.abc import Sequence
from dataclasses import asdict

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cl_powerprop.config import GROUPS, RunConfig, parse
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.explanations import explain_composition_error
from cl_powerprop.naming import Row, against, flat
from cl_powerprop.overrides import prepare
from cl_powerprop.registry import CONF


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
            return parse(hydra_compose("run", words))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(explain_composition_error(error)) from error
    finally:
        GlobalHydra.instance().hydra = before


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
