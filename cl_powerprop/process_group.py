"""The group of processes that train one run together, and how they fail together."""

import contextlib
import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from cl_powerprop.errors import RankError
from cl_powerprop.torchrun import Place, place, take_the_word

_FAILURE = "cl-powerprop/failure"  # key of the store under which the first process that fails says why
_PATIENCE = timedelta(seconds=2)  # for the reason why a connection was lost


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` has started, for what happens inside; a single process has none to join.

    If one of them fails, all do: the first one says why, and the others end quietly.

    Args:
        device: of this process.

    Raises:
        RankError: if another process has failed.
    """
    here = place()
    if here.ranks == 1 or distributed.is_initialized():
        yield
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    before = signal.signal(signal.SIGTERM, _terminated)  # torchrun sends it to all when one has failed
    try:
        yield
    except BaseException as error:
        _fail(here, error)
        raise
    else:
        distributed.barrier()  # the first one has written all files
        distributed.destroy_process_group()
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """Exchange something among the processes inside.

    Raises:
        RankError: if the connection to another one is lost, with its reason if it gave one.
    """
    try:
        yield
    except distributed.DistBackendError as error:
        raise _lost(error) from error
    except RuntimeError as error:  # gloo's
        if "gloo" not in str(error).lower() and "connection" not in str(error).lower():
            raise
        raise _lost(error) from error


def _store() -> Any:
    return distributed.distributed_c10d._get_default_store()


def _lost(error: Exception) -> RankError:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun is about to send it; first, the run folder is to say why
    return RankError(_reason(_PATIENCE) or f"the connection to another process was lost: {str(error).splitlines()[0]}")


def _reason(patience: timedelta) -> str | None:
    """Return why another process has failed, if it has said so."""
    with contextlib.suppress(RuntimeError):
        store = _store()
        store.wait([_FAILURE], patience)
        failure = json.loads(store.get(_FAILURE))
        return f"rank {failure['rank']}: {failure['reason']}"
    return None


def _fail(here: Place, error: BaseException) -> None:
    """Say why this process fails, unless another one has failed before."""
    mine = json.dumps({"rank": here.rank, "reason": str(error) or type(error).__name__})
    with contextlib.suppress(RuntimeError):  # the store is gone with torchrun
        take_the_word(_store().compare_set(_FAILURE, "", mine).decode() == mine)


def _terminated(*_: object) -> None:
    reason = _reason(timedelta(milliseconds=100))
    raise KeyboardInterrupt if reason is None else RankError(reason)
