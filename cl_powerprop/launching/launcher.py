"""Hydra's launchers of the jobs of a multirun: one plans which are left, and an engine runs them."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cl_powerprop.errors import ConfigurationError, FileError, ProcessDiedError, unknown_option
from cl_powerprop.failures import Failure, Failures
from cl_powerprop.hydra_guard import LAUNCHERS
from cl_powerprop.launching.composing import compose_once, parsed
from cl_powerprop.launching.engine import Call, Engine, Outcome, outcomes
from cl_powerprop.launching.job_list import COMPLETE, FAILED, ListedJob, add_jobs, is_study, read_jobs
from cl_powerprop.launching.jobs import failure_of, returned, run_job
from cl_powerprop.launching.planning import PlannedJob, plan
from cl_powerprop.launching.processes import ProcessEngine
from cl_powerprop.launching.ray_cluster import RayEngine
from cl_powerprop.launching.slurm import SlurmEngine
from cl_powerprop.naming import job_name
from cl_powerprop.output import say

log = logging.getLogger("cl_powerprop")

ENGINES: dict[str, type[Any]] = {"processes": ProcessEngine, "slurm": SlurmEngine, "ray": RayEngine}
"""Kinds of engines by the choice of `hydra/launcher`."""


class JobLauncher(Launcher):  # type: ignore[misc]
    """Runs the jobs that are not complete.

    Args:
        failures: what jobs have failed of.
        kind: of the engine that runs them.
        only_failed: run only jobs that failed before.
        settings: of the engine.
    """

    def __init__(self, failures: Failures, kind: type[Any], only_failed: bool = False, **settings: Any) -> None:
        self.failures, self.kind, self.only_failed = failures, kind, only_failed
        self.settings = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in settings.items()
        }
        self.engine: Engine
        self.config: DictConfig
        self.hydra_context: HydraContext
        self.task_function: TaskFunction

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.engine = self._engine()  # before the sweeper writes anything
        if is_study(folder := Path(str(config.hydra.sweep.dir))):
            raise ConfigurationError(f"{folder} holds a study of cl-powerprop tune; choose another run_dir")
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def _engine(self) -> Engine:
        """Return the engine.

        Raises:
            ConfigurationError: for a setting that it does not have, or that cannot work.
        """
        known = [each.name for each in fields(self.kind) if each.init]
        for name in self.settings:
            if name not in known:
                raise ConfigurationError(unknown_option(f"hydra.launcher.{name}", [*known, "only_failed"]))
        if not isinstance(self.only_failed, bool):
            raise ConfigurationError(f"hydra.launcher.only_failed must be true or false, not {self.only_failed!r}")
        engine: Engine = self.kind(**self.settings)
        engine.check()
        return engine

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs that are left, and return what each returned; of a complete one, what it returned before.

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
        results = dict(self._run(left, sweep))
        return [results.get(job.listed.job) or returned(job.objective()) for job in jobs]

    def _is_left(self, job: PlannedJob) -> bool:
        return job.state == FAILED if self.only_failed else job.state != COMPLETE

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
        for outcome in outcomes(self.engine, run_job, calls, say):
            job = jobs[outcome.index]
            failure = self._failure(job, outcome)
            state = COMPLETE if failure is None else FAILED
            if job.is_listed:
                _add(sweep, [replace(job.listed, state=state, message="" if failure is None else failure.message)])
            yield job.listed.job, returned(None) if outcome.result is None else outcome.result.returned

    def _failure(self, job: PlannedJob, outcome: Outcome) -> Failure | None:
        """Return what a job has failed of, which its process may have written down; from then on it is named."""
        if outcome.died is not None:
            failure: Failure | None = Failure.of(ProcessDiedError(outcome.died))
        elif outcome.error is not None:
            failure = failure_of(outcome.error)
        else:
            failure = outcome.result.failure or self.failures.of(job.listed.job)
        if failure is not None:
            failure = replace(failure, job=_title(job))
            self.failures.add(job.listed.job, failure)
        return failure


def _title(job: PlannedJob) -> str:
    return f"job {job.listed.job}: {job.listed.name}"


def _name(config: DictConfig, overrides: Sequence[str], swept: Collection[str]) -> str:
    """Return the name of a job by what is swept, without making its typed config."""
    given: dict[str, Any] = {}
    for override in map(parsed, overrides):
        value = OmegaConf.select(config, override.key_or_group, default=None)
        is_part = OmegaConf.is_config(value) or value is None
        given[override.key_or_group] = override.get_value_element_as_str() if is_part else value
    row = {"strategy": OmegaConf.select(config, "strategy.name"), "seed": OmegaConf.select(config, "seed")}
    return job_name(row, given, swept, OmegaConf.select(config, "seeds_together"))


def _add(sweep: Path, jobs: Sequence[ListedJob], begins: bool = False) -> None:
    """Add to the list of jobs, if that can be written: no job depends on it."""
    try:
        add_jobs(sweep, [job for job in jobs if not job.folder.startswith("..")], begins)
    except (OSError, FileError) as error:
        log.warning("the list of jobs in %s cannot be written: %s", sweep, error)


def register(failures: Failures) -> None:
    """Make the launchers known to Hydra in this process, and let Hydra compose the jobs of a multirun fast.

    Args:
        failures: what jobs have failed of.
    """
    for name, kind in ENGINES.items():
        # Hydra takes launchers only of modules below `hydra_plugins`, all of which it imports each time that it starts.
        Plugins.instance().class_name_to_class[LAUNCHERS[name]] = partial(JobLauncher, failures=failures, kind=kind)
    compose_once()
