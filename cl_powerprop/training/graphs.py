"""CUDA graphs: a step that is recorded once and then replayed by one launch."""

from collections.abc import Callable, Hashable

import torch

_WARM_UP = 3  # steps that run before one is recorded: libraries, allocator and autograd settle in them


class Replay:
    """Runs a step on fixed tensors: recorded once and then replayed on CUDA, called each time elsewhere.

    The step reads and writes tensors that stay where they are, makes all others anew, and never waits for the device.
    Every call does the step's work exactly once, those that come before the recording included.

    Args:
        step: the step.
        device: what it runs on.
        enabled: record it, if the device is a GPU.
        pool: memory that several steps share which never run at the same time; None for its own.
    """

    def __init__(
        self, step: Callable[[], None], device: torch.device, enabled: bool = True, pool: object | None = None
    ) -> None:
        self.step = step
        self._records = enabled and device.type == "cuda"
        self._pool = pool
        self._calls = 0
        self._key: Hashable = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, key: Hashable = None) -> None:
        """Do the step's work.

        Args:
            key: what the recorded work depends on, such as the addresses of its tensors; it is recorded anew when this
                changes.
        """
        if not self._records:
            self.step()
            return
        if key != self._key:
            self._graph, self._calls, self._key = None, 0, key
        if self._graph is not None:
            self._graph.replay()
            return
        self._calls += 1
        if self._calls <= _WARM_UP:
            self.step()
            return
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self.step()
        graph.replay()
        self._graph = graph
