"""CUDA graphs: a training step that is recorded once, as one graph of kernels, and then replayed by one launch.

The networks of continual-learning benchmarks are small: a GPU computes a step of theirs in less time than Python needs
to launch its kernels one by one.
"""

import contextlib
import gc
import logging
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.limits import CUDA_GRAPHS
from cl_powerprop.sparsity.masked_weight import use_bits_always
from cl_powerprop.sparsity.task_aware import TaskAware
from cl_powerprop.training.listeners import listens, speaks_for
from cl_powerprop.training.steps import STEP_EVENTS, Steps
from cl_powerprop.training.unseen import unseen

log = logging.getLogger("cl_powerprop")

_WARM_UP = 3  # steps that run before one is recorded: libraries, allocator and optimizer settle in them
_STREAMS = 32  # that torch has on a device, and gives out in turn


class Replay:
    """Runs a step on fixed tensors: recorded once and then replayed on CUDA, called each time elsewhere.

    The step reads and writes tensors that stay where they are, makes all others anew, and never waits for the device.
    Every call does the step's work exactly once, those that come before the recording included.

    Args:
        step: the step.
        device: what it runs on.
        enabled: record it, if the device is a GPU.
        pool: memory that several steps share which never run at the same time; None for its own.

    A step is called each time on a GPU, too, while there are 32 recorded ones already.
    """

    def __init__(
        self, step: Callable[[], None], device: torch.device, enabled: bool = True, pool: Any | None = None
    ) -> None:
        self.step = step
        self._stream = _own_stream(self, device) if enabled and device.type == "cuda" else None
        self.pool = pool
        self._calls = 0
        self._key: Hashable = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, key: Hashable = None) -> None:
        """Do the step's work.

        Args:
            key: what the recorded work depends on, such as the addresses of its tensors; it is recorded anew when this
                has changed.

        Raises:
            RuntimeError: if the step cannot be recorded; its work was not done then.
        """
        if self._stream is None:
            self.step()
            return
        if self._graph is not None and key is not self._key and key != self._key:
            torch.cuda.current_stream().synchronize()  # before the graph is destroyed
            self._graph, self._calls = None, 0
        if self.records_next:
            self._graph, self._key = self._record(self._stream), key
        if self._graph is not None:
            self._graph.replay()
        else:
            self._calls += 1
            self._warm_up(self._stream)

    @property
    def records_next(self) -> bool:
        """Whether the next call records the step."""
        return self._graph is None and self._calls == _WARM_UP and self._stream is not None

    @property
    def is_recorded(self) -> bool:
        """Whether the next call replays the step, if its key is the same."""
        return self._graph is not None

    def _warm_up(self, stream: torch.cuda.Stream) -> None:
        """Do the work on the stream of the recording, whose nodes autograd then knows."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.step()
        torch.cuda.current_stream().wait_stream(stream)

    def _record(self, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # Other threads of the process, such as a logger's, may use CUDA meanwhile.
        options: Any = {"pool": self.pool, "stream": stream, "capture_error_mode": "thread_local"}
        try:
            with _nothing_collected(), torch.cuda.graph(graph, **options):
                self.step()
        finally:
            torch.cuda.set_stream(before)  # where a recording has failed, torch may leave its own
        return graph


_taken: set[int] = set()  # handles of the streams of recorded steps


def _own_stream(owner: object, device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream that no other recorded step has; None if all are taken.

    torch frees what cuBLAS works in on a stream when a graph is destroyed that was recorded there, also if another
    graph still uses it (https://github.com/pytorch/pytorch/issues/193402).
    """
    for _ in range(_STREAMS):
        stream = torch.cuda.Stream(device)
        handle = int(stream.cuda_stream)
        if handle not in _taken:
            _taken.add(handle)
            weakref.finalize(owner, _taken.discard, handle)
            return stream
    return None


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Let Python's collector free nothing inside: it might destroy another graph while one is recorded."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Graphs:
    """The recorded steps of a learner: one graph for each size of batch, as long as the same tensors take part.

    A plugin whose handlers of events within a step only work on tensors says so by a method
    ``graph_tensors(strategy)``: it returns those that they use, the learner's model, optimizer and batch apart, or None
    if they cannot be recorded at present. Its handlers before and after an iteration are called at each replay. A
    plugin without the method that listens to any of these events keeps steps from being recorded.

    Args:
        learner: Avalanche's strategy object.
        wanted: "auto", "true" or "false"; "auto" records steps on a GPU where that is possible.

    Raises:
        ConfigurationError: for another word, or "true" without a GPU.
    """

    def __init__(self, learner: Any, wanted: str) -> None:
        check_choice("train.cuda_graphs", wanted, CUDA_GRAPHS)
        self.learner = learner
        self.wanted = wanted
        on_gpu = learner.device.type == "cuda"
        if wanted == "true" and not on_gpu:
            raise ConfigurationError(f"train.cuda_graphs=true needs a GPU, and this run is on {learner.device}")
        self.is_on = on_gpu and wanted != "false"
        self.is_settled = False  # nothing has moved tensors since the key was made
        self.recorded: dict[int, _Recorded] = {}  # by the number of samples in a batch
        self._memory: _Memory | None = None
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process: a copy records its own steps."""
        return vars(self) | {"recorded": {}, "_memory": None}

    def replay(self, step: Callable[[], None]) -> Replay:
        """Return what records and replays a step; all steps share their memory, for one runs at a time."""
        device = self.learner.device
        if self._memory is None and device.type == "cuda":
            self._memory = _Memory(device)
        return Replay(step, device, pool=None if self._memory is None else self._memory.pool)

    def steps(self, frozen: Sequence[Parameter], options: Mapping[str, Any]) -> Steps:
        """Return what makes the steps of the epoch that begins."""
        plain = Steps(self.learner, frozen, options)
        if not self.is_on:
            return plain
        hindrance = self._hindrance()
        if hindrance is None:
            return GraphedSteps(plain, self)
        self.tell(hindrance)
        return plain

    def _hindrance(self) -> str | None:
        """Return why steps cannot be recorded at present; None if they can."""
        learner = self.learner
        if learner.optimizer is None:
            return "there is no optimizer"
        if not all(group.get("fused") for group in learner.optimizer.param_groups):
            return f"{type(learner.optimizer).__name__} is not fused"
        if (found := unseen(learner)) is not None:
            return found
        for plugin in learner.plugins:
            handled = [event for event in STEP_EVENTS if listens(plugin, event)]
            if not handled or plugin is learner.clock:
                continue
            if not speaks_for(plugin, "graph_tensors", handled):
                return f"the plugin {type(plugin).__name__} takes part in steps"
            if plugin.graph_tensors(learner) is None:
                return f"the plugin {type(plugin).__name__} is called in each step"
        return None

    def tell(self, hindrance: str) -> None:
        """Say once that steps are not recorded, or refuse to go on if they must be.

        Raises:
            ConfigurationError: with `train.cuda_graphs=true`.
        """
        if self.wanted == "true":
            raise ConfigurationError(f"train.cuda_graphs=true: steps cannot be recorded ({hindrance}); use auto")
        if not self._told:
            log.info(f"steps are not recorded as CUDA graphs: {hindrance}")
        self._told = True

    def give_up(self, error: RuntimeError) -> None:
        """Record no more steps, after an attempt that failed.

        Raises:
            ConfigurationError: with `train.cuda_graphs=true`.
        """
        self.recorded = {}
        self.tell(str(error).strip().splitlines()[0])
        self.is_on = False

    def key(self, frozen: Sequence[Parameter]) -> Hashable:
        """Return what recorded steps depend on: where all tensors lie, and what decides which kernels run."""
        learner = self.learner
        model, optimizer = learner.model, learner.optimizer
        plugins = [plugin for plugin in learner.plugins if hasattr(plugin, "graph_tensors")]
        return (
            tuple((name, value.requires_grad, _place(value)) for name, value in model.named_parameters()),
            tuple(_state(module) for module in model.modules()),
            tuple(_options(group) for group in optimizer.param_groups),
            tuple(_place(value) for state in optimizer.state.values() for value in _tensors(state.values())),
            tuple((id(plugin), *map(_place, plugin.graph_tensors(learner) or ())) for plugin in plugins),
            (id(model), id(optimizer), id(learner._criterion), tuple(map(id, frozen))),
            tuple(map(_place, _tensors(vars(learner.dataloader).values()))),
        )


class _Memory:
    """Memory that recorded steps share; an empty graph keeps it while none of them has a recording."""

    _streams: ClassVar[dict[torch.device, torch.cuda.Stream | None]] = {}  # of empty graphs, one on each device

    def __init__(self, device: torch.device) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self._keeper = torch.cuda.CUDAGraph()
        if device not in self._streams:
            self._streams[device] = _own_stream(_Memory, device)
        options: Any = {"pool": self.pool, "stream": self._streams[device], "capture_error_mode": "thread_local"}
        with _nothing_collected(), torch.cuda.graph(self._keeper, **options):
            torch.zeros(1, device=device)


class _Recorded:
    """The recorded step of one size of batch, its fixed inputs, and what it leaves."""

    def __init__(self, replay: Replay, inputs: list[Tensor]) -> None:
        self.replay = replay
        self.inputs = inputs
        self.left: tuple[Any, Tensor, Tensor] = ([], torch.empty(0), torch.empty(0))


class GraphedSteps(Steps):
    """Makes the steps of an epoch by replaying recorded ones.

    Args:
        plain: makes them one by one; this is what is recorded.
        graphs: those of the learner.
    """

    def __init__(self, plain: Steps, graphs: Graphs) -> None:
        self.learner = plain.learner
        self.frozen = plain.frozen
        self._plain = plain
        self._graphs = graphs
        self._key: Hashable = None
        self._how: Hashable = None  # the optimizer's options, which plugins may change before a step
        self._gathers = getattr(self.learner.dataloader, "gathers", False)
        self._current: _Recorded | None = None
        changing = any(getattr(plugin, "changes_masks", False) for plugin in self.learner.plugins)
        self._masked = use_bits_always(self.learner.model) if changing else []
        graphs.is_settled = False

    def batches(self) -> Iterator[Any]:
        """Return the batches of the epoch; if they are gathered within the step, the positions of their samples."""
        return self.learner.dataloader.places() if self._gathers else super().batches()

    def take(self, batch: Any) -> None:
        """Put a batch where the recorded step finds it."""
        if self._gathers:
            inputs, self.learner.mbatch = [batch], None  # it is gathered within the step
        else:
            self._plain.take(batch)
            inputs = list(self.learner.mbatch)
        size = len(inputs[0])
        recorded = self._graphs.recorded.get(size)
        if recorded is None or not _alike(recorded.inputs, inputs):
            replay = self._graphs.replay(self._step)
            recorded = self._graphs.recorded[size] = _Recorded(replay, [torch.empty_like(each) for each in inputs])
        recorded.replay.step = self._step
        for fixed, each in zip(recorded.inputs, inputs, strict=True):
            fixed.copy_(each)
        self._current = recorded

    def make(self) -> None:
        """Make the step of the current batch."""
        learner, current = self.learner, self._current
        assert current is not None
        if not self._graphs.is_on or any(weight.is_watched for weight in self._masked):
            self._step()
            return
        replay = current.replay
        how = tuple(map(_options, learner.optimizer.param_groups))
        settled = self._graphs.is_settled and how == self._how
        if replay.records_next or not settled:  # warming up makes the optimizer's state
            self._how = how
            self._key, self._graphs.is_settled = self._graphs.key(self.frozen), True
        learner.reuses_batch = True
        if replay.is_recorded:
            learner.mbatch, learner.mb_output, learner.loss = current.left
        elif replay.records_next:
            learner.mb_output = learner.loss = None  # their autograd graphs belong to steps that are not recorded
            try:
                replay(self._key)
            except RuntimeError as error:
                self._graphs.give_up(error)
                self._step()
                return
            learner.mb_output, learner.loss = learner.mb_output.detach(), learner.loss.detach()
            current.left = (learner.mbatch, learner.mb_output, learner.loss)
            return
        replay(self._key)

    def _step(self) -> None:
        assert self._current is not None
        if self._gathers:
            self.learner.mbatch = self.learner.dataloader.batch(*self._current.inputs)
            self.learner._unpack_minibatch()
        else:
            self.learner.mbatch = self._current.inputs
        self._plain.make()


def _alike(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return [(each.shape, each.dtype) for each in some] == [(each.shape, each.dtype) for each in others]


def _state(module: nn.Module) -> Hashable:
    """Return what a module's kernels depend on, its parameters apart; values of finished tasks are not trained with."""
    by_task = module.by_task if isinstance(module, TaskAware) else ()
    buffers = tuple((name, _place(each)) for name, each in module.named_buffers(recurse=False) if name not in by_task)
    selected = getattr(module, "selected", None)
    return module.training, "by sample" if isinstance(selected, Tensor) else selected, buffers


def _place(tensor: Tensor) -> Hashable:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in values if isinstance(value, Tensor))


def _options(group: Mapping[str, Any]) -> Hashable:
    """Return the options of a parameter group; a rate that is a tensor may have any value."""
    return tuple(
        (key, _place(value) if isinstance(value, Tensor) else value)
        for key, value in group.items()
        if key not in ("params", "initial_lr")
    )
