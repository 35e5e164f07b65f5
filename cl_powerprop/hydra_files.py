"""What Hydra writes into a run folder itself, if it is told to: once, without secrets, and never through a link."""

import os
from pathlib import Path

import yaml
from hydra.core import utils
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper

from cl_powerprop.files import write_file
from cl_powerprop.privacy import redact_all


def _write_once(config: DictConfig, filename: str, output_dir: Path) -> None:
    """Write a config unless there is one: a run that goes on, or is refused, has that of the run that was begun."""
    if output_dir.is_symlink() or os.path.lexists(output_dir / filename):
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    values = redact_all(OmegaConf.to_container(config, resolve=False, enum_to_str=True))
    text = yaml.dump(values, allow_unicode=True, sort_keys=False, Dumper=get_omega_conf_dumper())
    write_file(output_dir / filename, text.encode())


def write_once() -> None:
    """Make Hydra write so, in this process."""
    utils._save_config = _write_once
