"""The README's script as a user has it: a process of its own, a new home folder, no network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .documents import blocks

pytestmark = pytest.mark.slow

NO_NETWORK = """
import socket
def refuse(*_): raise OSError("there is no network")
socket.socket.connect = socket.getaddrinfo = refuse
"""


def run(code: str, folder: Path) -> tuple[str, str]:
    """Run a script; return what it printed, and what it wrote on stderr."""
    environment = {name: value for name, value in os.environ.items() if name != "CL_POWERPROP_DATA"}
    ended = subprocess.run(
        [sys.executable, "-c", NO_NETWORK + code],
        cwd=folder,
        env=environment | {"HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


def test_the_script_of_the_readme_needs_no_network_and_warns_of_no_solver(tmp_path: Path) -> None:
    (script,) = [block for block in blocks("README.md", "In your own Avalanche script") if block.language == "python"]
    ending = """
from cl_powerprop.training.tensor_data import find_tensors
assert all(find_tensors(each.dataset) for stream in benchmark.streams.values() for each in stream)
"""
    printed, complaints = run(script.code + ending, tmp_path)
    used = [line for line in printed.splitlines() if line.startswith("capacity used")]
    assert len(used) == 5
    assert "solver" not in complaints


def test_importing_the_package_before_avalanche_is_enough_to_hear_of_no_solver(tmp_path: Path) -> None:
    _, complaints = run(
        "import cl_powerprop\nimport avalanche.training\nimport sys\nassert 'qpsolvers' in sys.modules", tmp_path
    )
    assert "solver" not in complaints
