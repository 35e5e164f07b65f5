"""What a job of a multirun is called: by the options that the multirun sweeps."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from cl_powerprop.composition import naming_row
from cl_powerprop.config import RunConfig
from cl_powerprop.naming import job_name
from cl_powerprop.record import Job


def job_of(config: RunConfig, hydra_config: Any, command: Sequence[str], live: bool) -> Job | None:
    """Return the place of a run in its multirun, None for a run alone.

    Args:
        config: of the run.
        hydra_config: Hydra's own, of this job.
        command: the words of the command, whose overrides hold for every job unless they have several values.
        live: whether the job has the terminal for itself.
    """
    if hydra_config.mode != RunMode.MULTIRUN:
        return None
    parser = OverridesParser.create()
    given = parser.parse_overrides(get_args_parser().parse_known_args(list(command))[0].overrides)
    fixed = {override.key_or_group for override in given if not override.is_sweep_override()}
    overrides = {
        override.key_or_group: override.get_value_element_as_str()
        for override in parser.parse_overrides(list(hydra_config.overrides.task))
    }
    row = naming_row(config)
    return Job(hydra_config.job.num, job_name(row, overrides, overrides.keys() - fixed, config.seeds_together), live)
