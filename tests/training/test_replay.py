"""Which stream a recorded step has; torch's own are replaced, since there is no GPU."""

import gc
import itertools
from typing import Any

import pytest
import torch

from cl_powerprop.training import graphs
from cl_powerprop.training.graphs import Replay


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give out 32 streams in turn, as torch does."""
    handles = itertools.cycle(range(1000, 1032))

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.cuda_stream = next(handles)

    monkeypatch.setattr(graphs.torch.cuda, "Stream", Stream)
    monkeypatch.setattr(graphs, "_taken", set())


@pytest.mark.usefixtures("streams")
def test_no_two_recorded_steps_share_a_stream() -> None:
    """torch frees what cuBLAS works in on a stream once any of the graphs that were recorded there is destroyed."""
    replays: list[Any] = [Replay(int, torch.device("cuda")) for _ in range(40)]
    own = [replay._stream.cuda_stream for replay in replays[:32]]
    assert len(set(own)) == 32
    assert all(replay._stream is None for replay in replays[32:]), "more steps than streams are not recorded"
    calls: list[int] = []
    replays[32].step = lambda: calls.append(1)
    for _ in range(6):
        replays[32]()
    assert len(calls) == 6
    freed = replays.pop(3)._stream.cuda_stream
    gc.collect()
    assert Replay(int, torch.device("cuda"))._stream.cuda_stream == freed  # type: ignore[union-attr]


def test_nothing_is_collected_while_a_step_is_recorded() -> None:
    assert gc.isenabled()
    with graphs._nothing_collected():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with graphs._nothing_collected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_step_on_a_cpu_is_called_each_time() -> None:
    calls: list[int] = []
    replay = Replay(lambda: calls.append(1), torch.device("cpu"))
    for key in range(10):
        replay(key)
    assert len(calls) == 10
    assert not replay.is_recorded
    assert not replay.records_next
