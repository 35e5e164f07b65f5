"""Hydra's launcher of the jobs of a multirun on this machine, each in a process of its own."""

import logging
import os
import pickle
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, run_job, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pebble import ProcessExpired

from cl_powerprop.errors import ConfigurationError, FileError, ProcessDiedError, StorageError, UserError
from cl_powerprop.explanations import explain_composition_error
from cl_powerprop.failures import Failure, Failures
from cl_powerprop.launching.composing import compose_once
from cl_powerprop.launching.job_list import COMPLETE, FAILED, ListedJob, add_jobs, read_jobs
from cl_powerprop.launching.planning import PlannedJob, plan
from cl_powerprop.launching.processes import Call, how_it_ended, outcomes
from cl_powerprop.naming import job_name
from cl_powerprop.output import say

log = logging.getLogger("cl_powerprop")

# Hydra takes launchers only of modules below `hydra_plugins`, all of which it imports each time that it starts.
TARGET = "hydra_plugins.cl_powerprop.ProcessLauncher"


class ProcessLauncher(Launcher):  # type: ignore[misc]
    """Runs each job in a process of its own, and none that is complete.

    Args:
        failures: what jobs have failed of.
        n_jobs: how many at a time; -1 for one a core.
        retries: how often a job whose process has died goes on from its checkpoint.
        only_failed: run only jobs that failed before.
    """

    def __init__(self, failures: Failures, n_jobs: int = 1, retries: int = 1, only_failed: bool = False) -> None:
        self.failures = failures
        self.n_jobs, self.retries, self.only_failed = n_jobs, retries, only_failed
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.task_function: TaskFunction

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._check()  # before the sweeper writes anything
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs that are left, and return what each returned; None of those that are not run.

        Raises:
            Interrupted: if a signal has arrived.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep = Path(str(self.config.hydra.sweep.dir))
        sweep.mkdir(parents=True, exist_ok=True)
        jobs = self._plan(job_overrides, initial_job_idx, sweep)
        left = [job for job in jobs if self._is_left(job)]
        if len(left) < len(jobs):
            which = "failed before, and run again" if self.only_failed else "are left to run"
            say(f"{len(left)} of {len(jobs)} jobs {which}")
        _add(sweep, [job.listed for job in left if job.is_listed], begins=True)
        returned = dict(self._run(left, sweep))
        return [returned.get(job.listed.job, _returned(None)) for job in jobs]

    def _is_left(self, job: PlannedJob) -> bool:
        return job.state == FAILED if self.only_failed else job.state != COMPLETE

    def _check(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ConfigurationError: naming the option.
        """
        for option, least, special in (("n_jobs", 1, -1), ("retries", 0, 0)):
            value = getattr(self, option)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if not is_whole or (value < least and value != special):
                raise ConfigurationError(
                    f"hydra.launcher.{option} must be a whole number of at least {least}, not {value!r}"
                )

    def _plan(self, job_overrides: Sequence[Sequence[str]], first: int, sweep: Path) -> list[PlannedJob]:
        before = HydraConfig.instance().cfg
        try:
            resumes = OmegaConf.select(self.config, "resume") != "never"
            return plan(self._composed(job_overrides), first, len(job_overrides), sweep, read_jobs(sweep), resumes)
        finally:
            HydraConfig.instance().cfg = before

    def _composed(self, job_overrides: Sequence[Sequence[str]]) -> Iterator[tuple[DictConfig, str]]:
        """Yield the config and the name of each job."""
        values: dict[str, set[str]] = {}
        for overrides in job_overrides:
            for override in overrides:
                key, _, value = override.partition("=")
                values.setdefault(key, set()).add(value)
        swept = {key.lstrip("+") for key, different in values.items() if len(different) > 1}
        for overrides in job_overrides:
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            yield config, _name(config, overrides, swept)

    def _run(self, jobs: Sequence[PlannedJob], sweep: Path) -> Iterator[tuple[int, JobReturn]]:
        """Run jobs, and yield the number of each with what it returned."""
        calls = [Call((self.task_function, self.hydra_context.callbacks, job.pickled), _title(job)) for job in jobs]
        at_a_time = (os.cpu_count() or 1) if self.n_jobs == -1 else self.n_jobs
        for outcome in outcomes(_run_job, calls, at_a_time, self.retries, say):
            job = jobs[outcome.index]
            failure = self._failure(job, outcome.error)
            state = COMPLETE if failure is None else FAILED
            if job.is_listed:
                _add(sweep, [replace(job.listed, state=state, message="" if failure is None else failure.message)])
            yield job.listed.job, _returned(None) if outcome.error else outcome.result

    def _failure(self, job: PlannedJob, error: BaseException | None) -> Failure | None:
        """Return what a job has failed of, which its process may have written down; from then on it is named."""
        failure = self.failures.of(job.listed.job) if error is None else Failure.of(_explained(error))
        if failure is not None:
            failure = replace(failure, job=_title(job))
            self.failures.add(job.listed.job, failure)
        return failure


def _title(job: PlannedJob) -> str:
    return f"job {job.listed.job}: {job.listed.name}"


def _name(config: DictConfig, overrides: Sequence[str], swept: Collection[str]) -> str:
    """Return the name of a job by what is swept, without making its typed config."""
    given: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = OmegaConf.select(config, override.key_or_group, default=None)
        is_part = OmegaConf.is_config(value) or value is None
        given[override.key_or_group] = override.get_value_element_as_str() if is_part else value
    row = {"strategy": OmegaConf.select(config, "strategy.name"), "seed": OmegaConf.select(config, "seed")}
    return job_name(row, given, swept)


def _explained(error: BaseException) -> BaseException:
    """Return an error of a job's process as one that a user can read."""
    match error:
        case ProcessExpired():
            return ProcessDiedError(how_it_ended(error))
        case HydraException() | OmegaConfBaseException():
            return ConfigurationError(explain_composition_error(error))
        case OSError() if not isinstance(error, UserError | StorageError):  # of Hydra, which makes the run folder
            return ConfigurationError(f"the run folder cannot be made: {error.filename}: {error.strerror}")
    return error


def _returned(value: Any) -> JobReturn:
    return JobReturn(status=JobStatus.COMPLETED, _return_value=value)


def _add(sweep: Path, jobs: Sequence[ListedJob], begins: bool = False) -> None:
    """Add to the list of jobs, if that can be written: no job depends on it."""
    try:
        add_jobs(sweep, [job for job in jobs if not job.folder.startswith("..")], begins)
    except (OSError, FileError) as error:
        log.warning("the list of jobs in %s cannot be written: %s", sweep, error)


def _run_job(task_function: TaskFunction, callbacks: Any, pickled: bytes, before: int) -> JobReturn:
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
    returned = run_job(
        task_function=task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=HydraContext(config_loader=None, callbacks=callbacks),
    )
    returned.cfg = returned.hydra_cfg = None  # nobody reads them
    return returned


def register(failures: Failures) -> None:
    """Make the launcher known to Hydra in this process, and let Hydra compose the jobs of a multirun fast.

    Args:
        failures: what jobs have failed of.
    """
    Plugins.instance().class_name_to_class[TARGET] = partial(ProcessLauncher, failures=failures)
    compose_once()
