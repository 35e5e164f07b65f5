"""TensorBoard: event files in the run folder, so that `tensorboard --logdir runs` shows every run below it."""

from collections.abc import Iterator
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from cl_powerprop.config import TensorBoardConfig
from cl_powerprop.record import RunRecord
from cl_powerprop.tracking.layer_curves import LayerCurves
from cl_powerprop.tracking.pictures import RunPictures
from cl_powerprop.tracking.stream import Row

# The tab Custom Scalars: all tasks of a run in one chart.
_LAYOUT = {
    "Forgetting": {
        "test accuracy of each task": ["Multiline", [r"^test/accuracy/.*"]],
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
}


class TensorBoardSink:
    """Writes every row as a scalar over optimizer steps, and figures and hparams at the end.

    TensorBoard's scalars are in single precision; its page leaves out those that are not.

    Args:
        settings: of the logger.
        config: the run's whole config.
        record: what is known of the run.
        pictures: the run's figures.
        purge: step from which on what earlier files hold is to be forgotten, for a run that is resumed.
    """

    def __init__(
        self,
        settings: TensorBoardConfig,
        config: dict[str, Any],
        record: RunRecord,
        pictures: RunPictures,
        purge: int | None = None,
    ) -> None:
        self._figures = settings.figures
        self._config = config
        self._record = record
        self._pictures = pictures
        self._layers = LayerCurves(record.capacity)
        self._step = 0
        self._writer = SummaryWriter(str(record.folder.path), purge_step=purge)
        self._writer.add_custom_scalars(_LAYOUT)

    def write(self, row: Row) -> None:
        """Write the row's value."""
        self._step = row.step
        self._scalar(row.curve, row.value)

    def _scalar(self, name: str, value: float) -> None:
        self._writer.add_scalar(name, value, self._step)

    def flush(self) -> None:
        """Write each layer's capacity, and make all visible."""
        for name, value in self._layers.new().items():
            self._scalar(name, value)
        self._writer.flush()

    def close(self) -> None:
        """Write metrics, hparams and figures."""
        metrics = {
            f"metrics/{name}": value
            for name, value in self._record.content["metrics"].items()
            if value is not None and value == value
        }
        for name, value in metrics.items():
            self._scalar(name, value)
        events = self._writer.file_writer
        assert events is not None
        for summary in hparams(dict(_flat(self._config)), metrics):  # add_hparams would make a second run of it
            events.add_summary(summary)
        if self._figures:
            for name, image in self._pictures.images.items():
                self._writer.add_image(f"pictures/{name}", image, self._step, dataformats="HWC")
        self._writer.close()

    def abort(self) -> None:
        """Close the file as it is."""
        self._writer.close()


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Yield the config with dotted keys, values as hparams takes them."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, value if isinstance(value, bool | int | float | str) else str(value)
