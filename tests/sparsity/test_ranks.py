"""Sparse training by two processes: the same masks on both, those of one process with the whole batch, or an error."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cl_powerprop.sparsity import Controller, powerpropagate

from .controllers import STEPS, make
from .networks import make_batch, make_network

pytestmark = pytest.mark.slow


def train(name: str, rank: int | None, seed: int = 0) -> Controller:
    """Train on this process's half of each batch, or on the whole of it."""
    model = powerpropagate(make_network("linear"), 2.0).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    controller = make(name, model, optimizer, sparsity=0.7, seed=seed)
    # Masks are the same on all processes, and torch could not send 16-bit integers.
    forward = model if rank is None else DistributedDataParallel(model, init_sync=False, broadcast_buffers=False)
    part = slice(None) if rank is None else slice(rank, None, 2)
    for step in range(STEPS):
        x, y = make_batch("linear", step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(x[part].double()), y[part]).backward()
        optimizer.step()
        controller.step()
    controller.finalize()
    return controller


def save(name: str, rank: int, folder: Path) -> None:
    controller = train(name, rank)
    torch.save([(each.active, each.phi) for each in controller.weights], folder / f"{name}{rank}.pt")


def differ(name: str, rank: int, folder: Path) -> None:
    with pytest.raises(RuntimeError, match="the masks after step 3 differ between the processes"):
        train(name, rank, seed=rank)
    (folder / f"{name}{rank}.error").touch()


def worker(rank: int, port: int, work: Callable[..., None], names: list[str], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        for name in names:
            work(name, rank, folder)
    finally:
        distributed.destroy_process_group()


def in_two_processes(*arguments: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(worker, (port, *arguments), nprocs=2)


def test_masks_are_those_of_one_process_with_the_whole_batch(tmp_path: Path) -> None:
    names = ["rigl", "set", "gradual", "top_kast"]
    in_two_processes(save, names, tmp_path)
    for name in names:
        first, second = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in range(2))
        whole = train(name, None)
        for one, other, each in zip(first, second, whole.weights, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
            assert torch.equal(one[0], each.active)
            torch.testing.assert_close(one[1], each.phi)


def test_masks_that_differ_are_an_error_on_all_processes(tmp_path: Path) -> None:
    in_two_processes(differ, ["set"], tmp_path)
    assert len(list(tmp_path.glob("*.error"))) == 2
