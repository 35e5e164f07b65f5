"""A sink: a text file with a line for each test accuracy."""

from dataclasses import dataclass
from typing import TextIO

from cl_powerprop import Row, RunView, SinkConfig, register_sink


@dataclass(kw_only=True)
class LinesConfig(SinkConfig):
    file: str = "lines.txt"


@register_sink("lines", LinesConfig)
class Lines:
    """A line of text for each test accuracy, in the run folder."""

    def __init__(self, config: LinesConfig, run: RunView) -> None:
        self._run = run
        self._file: TextIO = (run.folder / config.file).open("a", encoding="utf-8")
        run.memory["opened"] = run.memory.get("opened", 0) + 1

    def write(self, row: Row) -> None:
        if row.curve.startswith("test/accuracy/"):
            self._file.write(f"{row.trained_tasks} {row.eval_task} {row.value:.4f}\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        outcome = self._run.outcome()
        self._file.write(f"{outcome.status} {outcome.metrics.get('average_accuracy')}\n")
        self._file.close()

    def abort(self) -> None:
        self._file.close()
