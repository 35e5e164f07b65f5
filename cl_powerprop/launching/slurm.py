"""The jobs of a multirun on a SLURM cluster, given to it by submitit; each SLURM job runs one or several of them.

SLURM sends SIGUSR1 before the time of a job is up. Its runs then write their checkpoints, and submitit puts the job
into the queue again.
"""

import contextlib
import io
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from cl_powerprop.errors import ConfigurationError, ProcessDiedError, check_choice
from cl_powerprop.interrupts import Interrupted, listening, telling
from cl_powerprop.launching import processes
from cl_powerprop.launching.engine import Call, outcomes
from cl_powerprop.launching.settings import check_number, check_text, check_whole
from cl_powerprop.output import say

_SIGNAL = "USR1"
_PATIENCE = {"slurm": 60.0, "local": 0.0}  # seconds that a job which got SIGTERM waits to be queued again, or killed
_LOOK = 1.0  # seconds between two looks for what has ended


class _LostError(RuntimeError):
    """A SLURM job has ended and left no result."""


@dataclass
class SlurmEngine:
    """Makes calls in SLURM jobs.

    Attributes:
        cluster: slurm, or local for submitit's stand-in on this machine.
        partition: as of `sbatch`, like the next three.
        account: see there.
        qos: see there.
        constraint: see there.
        gpus_per_node: GPUs of a SLURM job.
        cpus_per_run: CPUs of each run.
        mem_gb: memory of a SLURM job.
        timeout_min: minutes after which a SLURM job is ended.
        max_num_timeout: how often it is queued again then.
        signal_delay_s: seconds before its time is up at which it gets the signal.
        array_parallelism: how many SLURM jobs run at a time.
        array_size: how many are submitted as one array.
        runs_per_job: how many runs a SLURM job has at a time, as on one GPU.
        retries: how often a run whose process has died goes on from its checkpoint.
        setup: shell commands before the run.
        additional_parameters: of `sbatch`.
        folder: of submitit's files.
    """

    cluster: str = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_node: int | None = None
    cpus_per_run: int = 1
    mem_gb: float | None = None
    timeout_min: int = 60
    max_num_timeout: int = 10
    signal_delay_s: int = 120
    array_parallelism: int = 256
    array_size: int = 1000
    runs_per_job: int = 1
    retries: int = 1
    setup: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ".submitit/%j"
    _jobs: list[tuple[Any, Sequence["Future[Any]"]]] = field(default_factory=list, init=False)
    _next_look: float = field(default=0.0, init=False)

    def check(self) -> None:
        check_choice("hydra.launcher.cluster", self.cluster, list(_PATIENCE))
        least = {"cpus_per_run": 1, "timeout_min": 1, "max_num_timeout": 0, "signal_delay_s": 1, "retries": 0}
        for option in ("array_parallelism", "array_size", "runs_per_job"):
            least[option] = 1
        for option, smallest in least.items():
            check_whole(option, getattr(self, option), smallest)
        if self.gpus_per_node is not None:
            check_whole("gpus_per_node", self.gpus_per_node, 0)
        if self.mem_gb is not None:
            check_number("mem_gb", self.mem_gb, 0.1)
        for option in ("partition", "account", "qos", "constraint", "folder"):
            if (value := getattr(self, option)) is not None:
                check_text(option, value)
        if "%" in self.folder.replace("%j", "", 1):  # SLURM would read %t, %A and others as its own
            raise ConfigurationError(
                f"hydra.launcher.folder, by default below run_dir, must have no % but for %j, not {self.folder!r}"
            )
        for command in _texts("setup", self.setup):
            check_text("setup", command)
        if not isinstance(self.additional_parameters, Mapping):
            raise ConfigurationError(
                "hydra.launcher.additional_parameters must be options of sbatch with their values, as in "
                f"'{{mail-type: END}}', not {self.additional_parameters!r}"
            )
        if self.signal_delay_s >= self.timeout_min * 60:
            raise ConfigurationError(
                f"hydra.launcher.signal_delay_s={self.signal_delay_s} must be less than the {self.timeout_min * 60} "
                "seconds of hydra.launcher.timeout_min"
            )
        self._executor()

    def room(self, running: int) -> int:
        if self.cluster != "local":
            return sys.maxsize  # SLURM itself runs as many as it may
        jobs = min(self.array_parallelism, os.cpu_count() or 1)
        return max(0, jobs - math.ceil(running / self.runs_per_job)) * self.runs_per_job

    def start(self, function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> list["Future[Any]"]:
        futures: list[Future[Any]] = [Future() for _ in calls]
        groups = [slice(first, first + self.runs_per_job) for first in range(0, len(calls), self.runs_per_job)]
        executor = self._executor()
        group = _Group(function, self.retries, _PATIENCE[self.cluster])
        for first in range(0, len(groups), self.array_size):
            part = groups[first : first + self.array_size]
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what its error has too
                    jobs = executor.map_array(group, [list(calls[each]) for each in part])
            except (RuntimeError, OSError) as error:  # submitit's, with what sbatch has said
                raise ConfigurationError(f"sbatch has refused the jobs: {error}") from None
            self._jobs += [(job, futures[each]) for job, each in zip(jobs, part, strict=True)]
            say(f"{len(jobs)} {self.cluster} jobs are queued, from {jobs[0].job_id} on")
        return futures

    def look(self) -> None:
        if time.monotonic() < self._next_look:
            return
        for job, futures in list(self._jobs):
            if job.done():
                self._jobs.remove((job, futures))
                _settle(job, futures)
                for file in (job.paths.submitted_pickle, job.paths.result_pickle):  # they have the whole command
                    file.unlink(missing_ok=True)
        self._next_look = time.monotonic() + _LOOK

    def how_it_died(self, error: BaseException) -> str | None:
        return str(error) if isinstance(error, _LostError) else None

    def end(self, running: Collection["Future[Any]"]) -> None:
        for job, _ in self._jobs:
            with contextlib.suppress(OSError):
                job.cancel(check=False)

    def _executor(self) -> Any:
        """Return what submits jobs with these settings.

        Raises:
            ConfigurationError: if submitit is not installed, or refuses a setting.
        """
        os.environ["SUBMITIT_PREEMPT_SIGNAL"] = _SIGNAL
        try:
            import submitit
        except ImportError:
            raise ConfigurationError("hydra/launcher=slurm needs submitit: pip install 'cl-powerprop[slurm]'") from None
        submitit.JobEnvironment.USR_SIG = _SIGNAL  # it may have been imported before
        try:
            executor = submitit.AutoExecutor(
                self.folder, self.cluster, **{f"{self.cluster}_max_num_timeout": self.max_num_timeout}
            )
        except RuntimeError:
            raise ConfigurationError(
                "hydra/launcher=slurm needs a machine with SLURM's sbatch and srun; hydra.launcher.cluster=local runs "
                "the jobs on this one"
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"hydra.launcher.folder={self.folder} cannot be made: {error.strerror or error}"
            ) from None
        executor.update_parameters(
            name="cl-powerprop",
            timeout_min=self.timeout_min,
            mem_gb=self.mem_gb,
            cpus_per_task=self.cpus_per_run * self.runs_per_job,
            gpus_per_node=self.gpus_per_node,
            slurm_partition=self.partition,
            slurm_account=self.account,
            slurm_qos=self.qos,
            slurm_constraint=self.constraint,
            slurm_signal_delay_s=self.signal_delay_s,
            slurm_array_parallelism=self.array_parallelism,
            slurm_setup=[f"export SUBMITIT_PREEMPT_SIGNAL={_SIGNAL}", *self.setup],
            slurm_additional_parameters={"requeue": True, **self.additional_parameters},
        )
        return executor


def _texts(option: str, values: Any) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise ConfigurationError(f"hydra.launcher.{option} must be a list, as in '[module load cuda]', not {values!r}")
    return values


def _settle(job: Any, futures: Sequence["Future[Any]"]) -> None:
    """Let the futures of a SLURM job know how its calls have ended."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        ended = job.result()
    except (FailedJobError, UncompletedJobError):
        state = str(job.state).lower()
        lost = _LostError(f"its job {job.job_id} ended without a result ({state}); see {job.paths.stderr}")
        for future in futures:
            future.set_exception(lost)
        return
    for future, (result, died) in zip(futures, ended, strict=True):
        if died is None:
            future.set_result(result)
        else:
            future.set_exception(ProcessDiedError(died))


class _Group:
    """What a SLURM job does: it makes some calls at a time, each in a process of its own.

    Args:
        function: to call.
        retries: how often a call whose process has died is made again.
        patience: seconds to wait after SIGTERM for being queued again, or killed.
        again: the job was queued before.
    """

    def __init__(self, function: Callable[..., Any], retries: int, patience: float, again: bool = False) -> None:
        self._function, self._retries, self._patience, self._again = function, retries, patience, again
        self._is_preempted = False

    def __call__(self, calls: Sequence[Sequence[Any]]) -> list[tuple[Any, str | None]]:
        """Return the result of each call, or what it has died of."""
        again = self._again or os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        made = [Call((self._function, arguments, again), str(index)) for index, arguments in enumerate(calls)]
        ended: dict[int, tuple[Any, str | None]] = {}
        queue_again = signal.signal(signal.Signals[f"SIG{_SIGNAL}"], self._preempt)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # submitit's would stay when the runs listen to signals
        engine = processes.ProcessEngine(len(made), self._retries)
        try:
            with listening(), telling(processes.tell):
                for outcome in outcomes(engine, _make, made, say):
                    if outcome.error is not None and outcome.died is None:
                        raise outcome.error
                    ended[outcome.index] = outcome.result, outcome.died
        except Interrupted:
            self._wait()
            self._queue_again(queue_again)
        late = "its time was up too often: raise hydra.launcher.timeout_min or max_num_timeout"
        return [ended.get(index, (None, late)) for index in range(len(made))]

    def checkpoint(self, calls: Sequence[Sequence[Any]]) -> Any:
        """Return what submitit is to do when the job is queued again: each run goes on from its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(_Group(self._function, self._retries, self._patience, again=True), calls)

    def _preempt(self, number: int, frame: FrameType | None) -> None:
        if not self._is_preempted:
            self._is_preempted = True
            signal.raise_signal(signal.SIGTERM)

    def _wait(self) -> None:
        """Wait for the signal that follows SIGTERM on some clusters; on others, the job is killed meanwhile.

        Raises:
            Interrupted: if the job is to end itself.
        """
        deadline = time.monotonic() + self._patience
        while not self._is_preempted:
            if time.monotonic() > deadline:
                raise Interrupted(signal.SIGTERM)
            time.sleep(0.1)

    def _queue_again(self, handler: Any) -> None:
        """Let submitit put the job into the queue again, which ends this process, unless its time was up too often."""
        from submitit.core.utils import UncompletedJobError

        with contextlib.suppress(UncompletedJobError):
            handler(signal.Signals[f"SIG{_SIGNAL}"], None)


def _make(function: Callable[..., Any], arguments: Sequence[Any], again: bool, before: int) -> Any:
    """Make a call whose last argument counts how often it was made before."""
    *others, earlier = arguments
    return function(*others, earlier + again + before)
