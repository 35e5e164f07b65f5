"""The progress of a run: on a terminal, its task, epoch, loss, accuracy, capacity or sparsity, and time left."""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cl_powerprop.tracking.progress_lines import ProgressLines, has_bar

_STEPS_A_REFRESH = 50  # steps between two refreshes, each of which takes time


class ProgressDisplay(SupervisedPlugin):  # type: ignore[misc]
    """A live progress bar over the whole run on a terminal, and a plain line for each task where there is none.

    Args:
        enabled: show anything.
        live: show the bar; False for one of several runs that share a terminal.
        title: of the run, where there are several.
        share: the share of the weights that the bar shows: "capacity" or "sparsity".
    """

    def __init__(self, enabled: bool = True, live: bool = True, title: str = "", share: str = "capacity") -> None:
        super().__init__()
        console = Console(stderr=True)
        self.lines = ProgressLines(enabled and not has_bar(console), title)
        self._experiences = 1
        self._left = 1
        self._progress = Progress(
            TextColumn("task {task.fields[task]}  epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}  accuracy {task.fields[accuracy]}"),
            TextColumn(f"{share} {{task.fields[{share}]}}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not (enabled and live and console.is_terminal),
        )
        start: dict[str, Any] = dict.fromkeys(("task", "epoch", "loss", "accuracy", share), "-")
        self._bar = self._progress.add_task("", total=None, **start)
        self._steps = 0

    @contextlib.contextmanager
    def over(self, work: Sequence[float], done: int = 0, spent: float = 0.0) -> Iterator[None]:
        """Show the bar while experiences are trained; it ends where they do, and begins where this process does.

        Args:
            work: of each experience, in any unit.
            done: how many of them were trained before, in a run that is resumed.
            spent: seconds that it has spent on the next one.
        """
        self._experiences, self._left = len(work), len(work) - done
        self.lines.start(work, done, spent)
        with self._progress:
            yield

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Show the current task and epoch; the time left is estimated as if all tasks were equally long."""
        task, epoch = strategy.experience.current_experience, strategy.clock.train_exp_epochs
        total = len(strategy.dataloader) * strategy.train_epochs * self._left
        shown: dict[str, Any] = {
            "task": f"{task + 1}/{self._experiences}",
            "epoch": f"{epoch + 1}/{strategy.train_epochs}",
        }
        self._progress.update(self._bar, total=total, **shown)

    def graph_tensors(self, strategy: Any) -> tuple[()]:
        return ()

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Count a step, and refresh the bar now and then."""
        self._steps += 1
        if self._steps == _STEPS_A_REFRESH:
            self._progress.advance(self._bar, self._steps)
            self._steps = 0

    def stack_key(self, strategy: Any) -> Hashable:
        """Return what learners have in common that train together."""
        return ()

    def stack(self, together: Any, bars: Sequence["ProgressDisplay"]) -> dict[str, Callable[[], None]]:
        """Count the steps; the bars of other learners advance when all are made."""
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1
            self.after_training_iteration(together.learners[0])

        def advance() -> None:
            for bar in bars[1:]:
                bar._progress.advance(bar._bar, steps)

        return {"after_training_iteration": count, "ended": advance}

    def show(self, **values: float) -> None:
        """Show measured values (loss, accuracy, capacity or sparsity) from now on."""
        shown: dict[str, Any] = {name: f"{value:.3f}" for name, value in values.items()}
        self._progress.update(self._bar, **shown)
