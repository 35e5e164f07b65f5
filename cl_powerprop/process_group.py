"""The group of processes that train one run together, and how they fail together."""

import atexit
import contextlib
import itertools
import json
import logging
import signal
import time
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import distributed

from cl_powerprop import interrupts
from cl_powerprop.errors import RankError
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.torchrun import Place, place, voice

_runs = itertools.count()  # that this process has taken part in
_failure = ""  # key of the store under which the first process that fails in the run says why
T = TypeVar("T")
_PATIENCE = 2.0  # seconds that a process whose connection is lost waits for the reason


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` has started, for what happens inside; a single process has none to join.

    If one of them fails, all do: the first one says why, and the others end quietly. SIGTERM is what it was before,
    unless `torchrun` sends it because of such a failure.

    Args:
        device: of this process.

    Raises:
        RankError: if another process has failed.
        Interrupted: if a signal has stopped another process.
    """
    global _failure
    here = place()
    if here.ranks == 1:
        yield
        return
    if not distributed.is_initialized():
        _join(device)
    _failure = f"cl-powerprop/failure/{next(_runs)}"
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, partial(_terminated, before))  # torchrun sends it to all when one has failed
    try:
        yield
    except BaseException as error:
        _fail(here, error)
        raise
    else:
        distributed.barrier()  # the first one has written all files
    finally:
        signal.signal(signal.SIGTERM, before)


def _join(device: torch.device) -> None:
    """Join the group, until the process ends: it cannot be joined twice."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    atexit.register(distributed.destroy_process_group)
    logging.getLogger("cl_powerprop").disabled = not place().is_first


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """Exchange something among the processes inside.

    Raises:
        RankError: if the connection to another one is lost, with its reason if it gave one.
        Interrupted: if it is lost because of a signal.
    """
    try:
        yield
    except distributed.DistBackendError as error:
        raise _lost() from error
    except RuntimeError as error:  # gloo's
        if "gloo" not in str(error).lower() and "connection" not in str(error).lower():
            raise
        raise _lost() from error


def wait_for_all() -> None:
    """Wait until all processes of the run are here."""
    if distributed.is_initialized():
        with collective():
            distributed.barrier()


def from_first(value: T) -> T:
    """Return what the first process of the run has, in all of them."""
    if not distributed.is_initialized():
        return value
    box = [value]
    with collective():
        distributed.broadcast_object_list(box, src=0)
    return box[0]


def highest(number: int) -> int:
    """Return the highest number that a process of the run has, in all of them."""
    if not distributed.is_initialized():
        return number
    box = torch.tensor(number)
    with collective():
        distributed.all_reduce(box, distributed.ReduceOp.MAX)
    return int(box)


def _store() -> Any:
    return distributed.distributed_c10d._get_default_store()


def _lost() -> RankError | Interrupted:
    if number := interrupts.requested():  # the other one was told to stop too
        return Interrupted(number)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun is about to send it; first, the run folder is to say why
    end = time.monotonic() + _PATIENCE
    while (failure := _failure_elsewhere()) is None and time.monotonic() < end:
        time.sleep(0.1)
    return failure or RankError("another process of the run is gone: it was killed, or its machine was lost")


def _failure_elsewhere() -> RankError | Interrupted | None:
    """Return why another process has failed, if it has said so."""
    with contextlib.suppress(RuntimeError):  # the store is gone with torchrun
        store = _store()
        if store.check([_failure]):
            said = json.loads(store.get(_failure))
            if said["signal"]:
                return Interrupted(said["signal"])
            return RankError(f"rank {said['rank']}: {said['reason']}")
    return None


def _fail(here: Place, error: BaseException) -> None:
    """Say why this process fails, unless another one has failed before."""
    atexit.unregister(distributed.destroy_process_group)  # on GPUs it would wait for the others
    number = error.signal if isinstance(error, Interrupted) else 0
    mine = json.dumps({"rank": here.rank, "reason": str(error) or type(error).__name__, "signal": number})
    with contextlib.suppress(RuntimeError):
        voice.settle(_store().compare_set(_failure, "", mine).decode() == mine)


def _terminated(before: Any, number: int, frame: FrameType | None) -> None:
    if not interrupts.requested() and (failure := _failure_elsewhere()) is not None:
        raise failure
    if not callable(before):
        raise Interrupted(number)
    before(number, frame)
