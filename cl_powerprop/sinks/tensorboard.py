"""TensorBoard: event files in the run folder, so that `tensorboard --logdir runs` shows every run below it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cl_powerprop.tracking.layer_curves import LayerCurves
from cl_powerprop.tracking.stream import AVERAGE, Row, RunView, SinkConfig, register_sink


@dataclass(kw_only=True)
class TensorBoardConfig(SinkConfig):
    """Options of `logger=[tensorboard]`.

    Attributes:
        figures: add the run's figures as images at the end.
    """

    figures: bool
    label: ClassVar[str] = "TensorBoard"


# The charts of the tab Custom Scalars, each with all tasks of a run.
_LAYOUT = {
    "Forgetting": {
        "test accuracy of each task": ["Multiline", [r"^test/accuracy/.*"]],
        "average test accuracy of the tasks so far": ["Multiline", [rf"^test/{AVERAGE}$"]],
        "test loss of each task": ["Multiline", [r"^test/loss/.*"]],
    },
    "Training": {
        "training loss": ["Multiline", [r"^train/loss/.*"]],
        "training accuracy": ["Multiline", [r"^train/accuracy/.*"]],
    },
    "Capacity": {
        "capacity used": ["Multiline", [r"^capacity/used$"]],
        "reused, of each layer's weights": ["Multiline", [r"^capacity/.*/reused$"]],
        "free, of each layer's weights": ["Multiline", [r"^capacity/.*/free$"]],
    },
    "Sparse training": {
        "sparsity": ["Multiline", [r"^sparsity/all$"]],
        "sparsity of each layer": ["Multiline", [r"^sparsity/.*"]],
    },
}


@register_sink("tensorboard", TensorBoardConfig)
class TensorBoardSink:
    """Writes every row as a scalar over optimizer steps, and figures and hparams at the end.

    Scalars are written in single precision, since TensorBoard's page does not show those in double precision.

    Args:
        settings: options of the logger.
        run: the run to log.
    """

    def __init__(self, settings: TensorBoardConfig, run: RunView) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._figures = settings.figures
        self._view = run
        self._layers = LayerCurves(run.capacity)
        self._step = 0
        # A resumed run repeats some steps, whose values in its earlier files must not be shown.
        purge = None if run.resumed_at is None else run.resumed_at + 1
        self._writer = SummaryWriter(str(run.folder), purge_step=purge)
        self._writer.add_custom_scalars(_LAYOUT)

    def write(self, row: Row) -> None:
        """Write the row's value."""
        self._step = row.step
        self._scalar(row.curve, row.value)

    def _scalar(self, name: str, value: float) -> None:
        self._writer.add_scalar(name, value, self._step)

    def flush(self) -> None:
        """Write each layer's capacity, and make everything so far visible."""
        for name, value in self._layers.new().items():
            self._scalar(name, value)
        self._writer.flush()

    def close(self) -> None:
        """Write metrics, hparams and figures, and close the file."""
        from torch.utils.tensorboard.summary import hparams

        metrics = {
            f"metrics/{name}": value
            for name, value in self._view.outcome().metrics.items()
            if value is not None and value == value
        }
        for name, value in metrics.items():
            self._scalar(name, value)
        events = self._writer.file_writer
        assert events is not None
        for summary in hparams(dict(_flat(self._view.config)), metrics):  # add_hparams would create a second run
            events.add_summary(summary)
        if self._figures:
            for name, image in self._view.figures.images.items():
                self._writer.add_image(f"pictures/{name}", image, self._step, dataformats="HWC")
        self._writer.close()

    def abort(self) -> None:
        """Close the file as it is."""
        self._writer.close()


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Yield (dotted key, value) for all options that are set, with values of the types that hparams takes."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, value if isinstance(value, bool | int | float | str) else str(value)
