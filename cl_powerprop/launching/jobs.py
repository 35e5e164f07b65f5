"""A job of a multirun where it runs: in a process of this machine, or on another one."""

import pickle
from dataclasses import dataclass
from typing import Any

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, setup_globals
from hydra.core.utils import run_job as run_hydra_job
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf.errors import OmegaConfBaseException

from cl_powerprop.errors import ConfigurationError, StorageError, UserError
from cl_powerprop.explanations import explain_composition_error
from cl_powerprop.failures import Failure


@dataclass(frozen=True)
class Ended:
    """How a job has ended.

    Attributes:
        returned: what it returned, as Hydra has it.
        failure: what it has failed of, unless it has written that down where the command looks.
    """

    returned: JobReturn
    failure: Failure | None = None


def run_job(task_function: TaskFunction, callbacks: Any, pickled: bytes, before: int) -> Ended:
    """Run a job in this process.

    Args:
        task_function: of Hydra.
        callbacks: of Hydra.
        pickled: the job's composed config.
        before: how many times it was tried before.
    """
    setup_globals()
    config = pickle.loads(pickled)
    if before:
        config.resume = "auto"
    version.setbase(config.hydra.runtime.version_base)
    HydraConfig.instance().set_config(config)
    JobRuntime.instance().set("name", config.hydra.job.name)
    try:
        job = run_hydra_job(
            task_function=task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=HydraContext(config_loader=None, callbacks=callbacks),
        )
    except Exception as error:  # noqa: BLE001, RUF100 (an error need not survive the way to the command)
        return Ended(returned(None), failure_of(error))
    if job.status == JobStatus.FAILED:
        return Ended(returned(None), failure_of(job._return_value))
    job.cfg = job.hydra_cfg = None  # nobody reads them
    return Ended(job)


def failure_of(error: BaseException) -> Failure:
    """Return an error of a job, or of Hydra as it begins one, as a failure that a user can read."""
    match error:
        case HydraException() | OmegaConfBaseException():
            return Failure.of(ConfigurationError(explain_composition_error(error)))
        case OSError() if not isinstance(error, UserError | StorageError):  # of Hydra, which makes the run folder
            return Failure.of(ConfigurationError(f"the run folder cannot be made: {error.filename}: {error.strerror}"))
    return Failure.of(error)


def returned(value: Any) -> JobReturn:
    """Return what Hydra takes as the result of a job that has returned a value."""
    return JobReturn(status=JobStatus.COMPLETED, _return_value=value)
