"""Each job of a Hydra multirun says where it runs. In a file of its own, for the processes of jobs import it."""

import contextlib
import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from cl_powerprop.files import write_file


class JobFolders(Callback):  # type: ignore[misc]
    """Notes the folder of each job.

    Args:
        told: the folder in which each job says where it runs; None outside of a job of a multirun.
    """

    def __init__(self, told: Path | None = None) -> None:
        self._told = told

    def __reduce__(self) -> tuple[type, tuple[Path | None]]:
        return JobFolders, (self._told,)  # Hydra pickles its callbacks with each job; what shows them stays behind

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Say where the job runs: only the job knows, where `run_dir` depends on its options."""
        folder = Path(config.hydra.runtime.output_dir)
        if config.hydra.mode == RunMode.MULTIRUN:
            remove_hydras_file(config)  # now, for a signal may end the multirun
        if self._told is not None and self._told.exists():  # there is no such place on another machine
            write_file(self._told / f"{config.hydra.job.num}.path", os.fsencode(folder), sync=False)


def remove_hydras_file(config: DictConfig) -> None:
    """Remove what Hydra says of a multirun: it has the machine's paths; each job's `config.yaml` says what was run."""
    with contextlib.suppress(OSError):
        Path(config.hydra.sweep.dir, "multirun.yaml").unlink(missing_ok=True)
