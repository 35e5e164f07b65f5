"""Sweeps by the command, in a process of its own, and what they measure."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TINY = (
    *("data=digits", "strategy=naive", "benchmark.n_tasks=2", "model.hidden=[20]"),
    *("progress=false", "checkpoint.max_share=1"),
)
QUICK, LONG = ("train.epochs=1",), ("train.epochs=20",)


def start(*words: str, common: Sequence[str] = TINY) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cl_powerprop", "run", "-m", *common, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def ended(*words: str, common: Sequence[str] = TINY) -> tuple[int, str, str]:
    process = start(*words, common=common)
    printed, errors = process.communicate(timeout=150)
    return process.returncode, printed, errors


def numbers(sweep: Path | str) -> dict[int, bytes]:
    """What was measured, by the job's number."""
    folders = [path for path in Path(sweep).iterdir() if path.name.isdecimal()]
    return {int(path.name): (path / "accuracy_matrix.csv").read_bytes() for path in folders}


def wait_for_checkpoint(sweep: str, process: "subprocess.Popen[str]") -> Path:
    """Return the folder of a run that has written one."""
    while not (found := list(Path(sweep).glob("*/checkpoint.safetensors"))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return found[0].parent
