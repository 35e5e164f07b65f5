"""What Hydra writes into a run folder itself, if it is told to: once, and never through a link."""

import os
from pathlib import Path

from hydra.core import utils
from omegaconf import DictConfig, OmegaConf

from cl_powerprop.files import write_file


def _write_once(config: DictConfig, filename: str, output_dir: Path) -> None:
    """Write a config unless there is one: a run that goes on, or is refused, has that of the run that was begun."""
    if output_dir.is_symlink() or os.path.lexists(output_dir / filename):
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    write_file(output_dir / filename, OmegaConf.to_yaml(config).encode())


def write_once() -> None:
    """Make Hydra write so, in this process."""
    utils._save_config = _write_once
