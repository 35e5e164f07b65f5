"""The jobs of a multirun on a Ray cluster, or on a Ray of this command's own on this machine."""

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from cl_powerprop.errors import ConfigurationError, ProcessDiedError
from cl_powerprop.interrupts import SIGNALS, Interrupted
from cl_powerprop.launching.engine import PATIENCE
from cl_powerprop.launching.settings import check_number, check_text, check_whole
from cl_powerprop.output import say

_ADDRESS = re.compile(r"(?P<host>[\w.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")
_SECONDS_TO_CONNECT = 6.0
_SMALLEST_STORE = 80_000_000  # bytes; the jobs keep nothing in it


@dataclass
class RayEngine:
    """Makes calls as tasks of Ray, whose processes make one after the other; on a GPU, each has one of its own.

    Attributes:
        address: HOST:PORT of a cluster, auto for that of this machine; None starts a Ray for this command.
        num_cpus: CPUs of a run.
        num_gpus: GPUs of a run, or the share of one.
        memory_gb: memory of a run, by which Ray places it.
        resources: of the cluster's own, by name.
        retries: how often a run whose process or machine has died goes on from its checkpoint.
        object_store_memory: bytes that a Ray of this command keeps for objects; a cluster has its own.
        init: further arguments of `ray.init`.
    """

    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    memory_gb: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    retries: int = 1
    object_store_memory: int | None = None
    init: Mapping[str, Any] = field(default_factory=dict)
    _running: dict["Future[Any]", Any] = field(default_factory=dict, init=False)
    _is_own: bool = field(default=False, init=False)

    def check(self) -> None:
        for option in ("num_cpus", "num_gpus"):
            check_number(option, getattr(self, option), 0)
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ConfigurationError(
                f"hydra.launcher.num_gpus must be whole, or less than 1 for a share of a GPU, not {self.num_gpus}"
            )
        if self.memory_gb is not None:
            check_number("memory_gb", self.memory_gb, 0.01)
        check_whole("retries", self.retries, 0)
        for option in ("resources", "init"):
            if not isinstance(value := getattr(self, option), Mapping):
                raise ConfigurationError(f"hydra.launcher.{option} must have names and values, not {value!r}")
        for name, amount in self.resources.items():
            check_number(f"resources.{name}", amount, 0)
        if own := [option for option in ("address", "object_store_memory") if option in self.init]:
            raise ConfigurationError(f"hydra.launcher.init.{own[0]} is given as hydra.launcher.{own[0]}")
        if self.object_store_memory is not None:
            check_whole("object_store_memory", self.object_store_memory, _SMALLEST_STORE)
        _import_ray()
        if self.address is not None:
            self._check_address()

    def _check_address(self) -> None:
        check_text("address", self.address)
        if self.object_store_memory is not None:
            raise ConfigurationError(
                "hydra.launcher.object_store_memory must be null with hydra.launcher.address: a cluster has its own"
            )
        address = _ADDRESS.fullmatch(str(self.address))
        if self.address != "auto" and (address is None or not 0 < int(address["port"]) < 2**16):
            raise ConfigurationError(
                f"hydra.launcher.address must be HOST:PORT of a Ray cluster, auto or null, not {self.address!r}"
            )
        # Ray itself looks for a cluster for longer, and prints much meanwhile.
        look = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", str(self.address)]
        try:
            if address is not None:
                place = address["host"].strip("[]"), int(address["port"])
                socket.create_connection(place, _SECONDS_TO_CONNECT / 2).close()
            subprocess.run(look, check=True, capture_output=True, timeout=_SECONDS_TO_CONNECT)
        except (OSError, subprocess.SubprocessError) as error:
            reason = getattr(error, "strerror", None) or "no Ray of this version answers there"
            raise ConfigurationError(
                f"no Ray cluster can be reached at hydra.launcher.address={self.address}: {reason}"
            ) from None

    def room(self, running: int) -> int:
        return sys.maxsize

    def start(self, function: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> list["Future[Any]"]:
        ray = self._connected()
        memory = {} if self.memory_gb is None else {"memory": int(self.memory_gb * 2**30)}
        self._check_room(ray, {"CPU": self.num_cpus, "GPU": self.num_gpus, **memory, **self.resources})
        task = ray.remote(
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            resources=dict(self.resources),
            max_retries=0,  # the command makes a call again itself, and says so
            **memory,
        )(_make)
        environment = {name: value for name, value in os.environ.items() if name.startswith("CL_POWERPROP_")}
        begun = [task.remote(os.getcwd(), environment, function, list(arguments)) for arguments in calls]
        futures: list[Future[Any]] = [each.future() for each in begun]
        self._running |= dict(zip(futures, begun, strict=True))
        return futures

    def _check_room(self, ray: Any, wanted: Mapping[str, float]) -> None:
        """Say it if no machine has what a run takes, for Ray waits in silence.

        Raises:
            ConfigurationError: if none will ever have it.
        """
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        if any(all(machine.get(name, 0) >= amount for name, amount in wanted.items()) for machine in machines):
            return
        named = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items() if amount)
        if self.address is None:
            raise ConfigurationError(f"this machine has no room for a run as hydra.launcher wants it: {named}")
        say(f"no machine of the Ray cluster has what a run takes ({named}); the jobs wait for one")

    def look(self) -> None:
        """Forget what has ended."""
        for future in [each for each in self._running if each.done()]:
            del self._running[future]

    def how_it_died(self, error: BaseException) -> str | None:
        """Return the first line of an error: it is Ray's, for the function itself raises none."""
        cause = getattr(error, "cause", None)
        lines = str(cause if isinstance(cause, ProcessDiedError) else error).strip().splitlines()
        return lines[0] if lines else type(error).__name__

    def end(self, running: Collection["Future[Any]"]) -> None:
        if not (self._running or self._is_own):
            return
        ray = _import_ray()
        for is_forced in (False, True):
            left = [future for future in running if not future.done()]
            for future in left:
                with contextlib.suppress(Exception):  # it may have ended meanwhile, or the cluster is gone
                    ray.cancel(self._running[future], force=is_forced)
            wait(left, timeout=PATIENCE)
        self._running.clear()
        if self._is_own:
            self._is_own = False
            ray.shutdown()

    def _connected(self) -> Any:
        """Return Ray, connected to the cluster, or to one that was started for this command.

        Raises:
            ConfigurationError: if that is not possible.
        """
        ray = _import_ray()
        if ray.is_initialized():
            return ray
        own: dict[str, Any] = {}
        if self.address is None:
            own = {"object_store_memory": self.object_store_memory or _SMALLEST_STORE, "include_dashboard": False}
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            with _signals_kept():
                ray.init(**{"address": self.address or "local", **own, **quiet, **self.init})
        except Exception as error:  # noqa: BLE001, RUF100 (Ray has many of its own)
            what = "Ray cannot be started" if self.address is None else f"no Ray cluster answers at {self.address}"
            said = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(f"{what}: {said}") from None
        self._is_own = True
        return ray


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ConfigurationError("hydra/launcher=ray needs Ray: pip install 'cl-powerprop[ray]'") from None
    return ray


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Put the handlers of signals back, which Ray replaces."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make(folder: str, environment: Mapping[str, str], function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Make a call in a process of Ray.

    Raises:
        ProcessDiedError: if the process was told to stop; the call has written a checkpoint.
    """
    os.chdir(folder)
    os.environ.update(environment)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray's would stay when the job listens to signals
    try:
        return function(*arguments)
    except Interrupted as stop:
        raise ProcessDiedError(f"its process was {stop}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
