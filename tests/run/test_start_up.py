"""Quick commands must not import torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..analysis.folders import write_sweep
from . import test_bad_sparsity
from .test_bad_input import MISTAKES

pytestmark = pytest.mark.slow

SCRIPT = """
import contextlib, io, json, sys
from cl_powerprop.cli import main
code = 0
with contextlib.redirect_stdout(io.StringIO()) as out:
    for words in json.loads(sys.argv[1]):
        try:
            main(words)
        except SystemExit as stopped:
            code = code or stopped.code
print(json.dumps([code, len(out.getvalue()), [name for name in ("torch", "avalanche") if name in sys.modules]]))
"""


def call(script: str, *arguments: str, folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CL_POWERPROP_DATA": str(folder)}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=environment).stdout


@pytest.mark.parametrize(
    "words",
    [
        *(["list"], ["--help"], ["--version"], ["data", "status"], ["data", "status", "--help"]),
        *(
            ["resume", "--help"],
            ["export", "--help"],
            ["sync", "--help"],
            ["pull", "--help"],
            ["dashboard", "--dry-run"],
        ),
        ["compare", "--help"],
    ],
    ids=" ".join,
)
def test_light_commands_import_neither_torch_nor_avalanche(words: list[str], tmp_path: Path) -> None:
    code, printed, heavy = json.loads(call(SCRIPT, json.dumps([words]), folder=tmp_path))
    assert code in (0, None)
    assert printed > 10
    assert heavy == []


def test_importing_the_package_and_its_analysis_imports_neither(tmp_path: Path) -> None:
    script = (
        "import sys, cl_powerprop, cl_powerprop.analysis.summary, cl_powerprop.analysis.compare\n"
        "print([name for name in ('torch', 'avalanche') if name in sys.modules])\n"
        "cl_powerprop.powerpropagate\n"
        "print([name for name in ('torch', 'avalanche') if name in sys.modules])"
    )
    light, heavy = call(script, folder=tmp_path).splitlines()
    assert light == "[]"
    assert heavy == "['torch']", "the sparsity package never imports Avalanche"


def test_the_reader_of_the_output_may_leave(tmp_path: Path) -> None:
    command = f"{sys.executable} -m cl_powerprop list | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "benchmark:\n"
    assert done.stderr == ""
    assert done.returncode == 0


def test_comparing_twenty_runs_imports_neither_torch_nor_avalanche(tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs", seeds=7)
    words = ["compare", "runs", "--out", "out"]
    code, printed, heavy = json.loads(call(SCRIPT, json.dumps([words]), folder=tmp_path))
    assert code in (0, None)
    assert printed > 10
    assert heavy == []
    assert (tmp_path / "out" / "report.html").stat().st_size > 1e6


# What only the machine or the data can tell.
NOT_IN_THE_CONFIG = {
    "device without CUDA",
    "second device without CUDA",
    "images too small",
    "HAT in a residual network",
    "HAT with a norm over channels",
    "validation of everything",
    "omniglot that is not there",
}


def test_a_mistake_in_the_config_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    known = {**MISTAKES, **test_bad_sparsity.MISTAKES}
    not_told = NOT_IN_THE_CONFIG | test_bad_sparsity.NOT_IN_THE_CONFIG
    calls = [["run", *words.split()] for name, (words, _) in known.items() if name not in not_told]
    assert len(calls) > 130
    code, _, heavy = json.loads(call(SCRIPT, json.dumps(calls), folder=tmp_path))
    assert code == 2
    assert heavy == []
