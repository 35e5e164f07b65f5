"""The runs that nothing disturbs: what the others are compared with, and where in them others are stopped."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .events import Stop, is_operation
from .starts import start


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing has disturbed.

    Attributes:
        name: of its config.
        words: of its config.
        folder: in which it lies, as `run`.
        trace: its events.
        steps: optimizer steps.
        cpu: seconds of CPU time.
    """

    name: str
    words: tuple[str, ...]
    folder: Path
    trace: list[str]
    steps: int
    cpu: float

    @property
    def command(self) -> tuple[str, ...]:
        """The words after `cl-powerprop`; the run folder lies in the current one."""
        return command(self.words)

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.folder / "run"

    @cached_property
    def interval(self) -> int:
        """The most steps in an epoch, after each of which a checkpoint is due."""
        longest = steps = 0
        for event in self.trace:
            steps = 0 if event in ("epoch", "task") else steps + (event == "step")
            longest = max(longest, steps)
        return longest

    @cached_property
    def operations(self) -> list[int]:
        """The positions in the trace of the operations on files."""
        return [index for index, event in enumerate(self.trace) if is_operation(event)]

    def before(self, index: int, **options: Any) -> Stop:
        """Return the stop before an event of the trace; options are those of :class:`Stop`."""
        is_file = is_operation(self.trace[index])
        number = sum(is_operation(event) == is_file for event in self.trace[:index])
        return Stop(operation=number, **options) if is_file else Stop(number, **options)

    @cached_property
    def moments(self) -> dict[str, list[int]]:
        """The positions in the trace of each kind of moment that the run has."""
        found: dict[str, list[int]] = {}
        chosen = False  # whether the task's mask is, and retraining has begun
        for index, event in enumerate(self.trace):
            kind, _, path = event.partition(" ")
            chosen = event != "task" and (chosen or event == "search")
            if event == "step":
                found.setdefault("retraining" if chosen else "training", []).append(index)
            elif kind == "rename":
                found.setdefault("rename", []).extend((index, index + 1))  # before it, and after it
            elif "checkpoint" in path:
                found.setdefault("checkpoint", []).append(index)
            elif event in ("search", "evaluation"):
                found.setdefault(event, []).append(index)
        return found

    @cached_property
    def middle(self) -> int:
        """The position in the trace of a step in the middle of the second task, or of the only one."""
        tasks = [index for index, event in enumerate(self.trace) if event == "task"]
        first = tasks[1] if len(tasks) > 1 else tasks[0]
        last = tasks[2] if len(tasks) > 2 else len(self.trace)
        steps = [index for index in range(first, last) if self.trace[index] == "step"]
        return steps[len(steps) * 2 // 3]


def command(words: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs a config in the folder `run` of the current one."""
    return ("run", *words, "run_dir=run")


def make(name: str, words: tuple[str, ...], folder: Path) -> Undisturbed:
    """Run a config once, undisturbed.

    Raises:
        RuntimeError: if it fails.
    """
    folder.mkdir(parents=True)
    trace = folder / "trace.json"
    ended = start(command(words), folder, trace=trace)
    if ended.code:
        raise RuntimeError(f"the undisturbed run of {name} ended with exit code {ended.code}:\n{ended.last_lines}")
    return Undisturbed(name, words, folder, json.loads(trace.read_text(encoding="utf-8")), ended.steps, ended.cpu)
