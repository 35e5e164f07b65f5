"""From overrides to a config, as the command composes it."""

from collections.abc import Sequence

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from cl_powerprop.config import RunConfig, parse
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.explanations import explain_composition_error
from cl_powerprop.overrides import prepare


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
