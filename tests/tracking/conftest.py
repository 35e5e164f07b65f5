"""W&B in tests: no network, none of the user's settings, and a new client for every test."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cl_powerprop.tracking.wandb_service import end_service

from ..run.conftest import clean_process, command
from .wandb_server import WandbServer

__all__ = ["clean_process", "command"]


@pytest.fixture(autouse=True)
def wandb_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    end_service()  # before the loop, so that the variable that names the service is not restored after the test
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield
    end_service()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with WandbServer() as started:
        for name, value in started.environment.items():
            monkeypatch.setenv(name, value)
        yield started


def inspect(file: Path) -> list[dict[str, Any]]:
    """The records of a `.wandb` file, read by W&B's own reader."""
    call = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    printed = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in printed.splitlines()]


def inspect_summary(file: Path) -> dict[str, Any]:
    """State, config and summary of a `.wandb` file, read by W&B's own reader."""
    call = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(file)]
    read: dict[str, Any] = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    return read


def wandb_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("wandb/*run-*/run-*.wandb") if not path.parent.is_symlink())


def services() -> list[psutil.Process]:
    """The W&B service processes of this one.

    Not their children: a program that the service starts bears the service's name for a moment.
    """
    return [child for child in psutil.Process().children() if "wandb-core" in child.name()]
