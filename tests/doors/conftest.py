"""Parts from outside the project, registered for one test and forgotten after it."""

import copy
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from cl_powerprop import registry

from ..run.conftest import Command, clean_process, command

__all__ = ["Command", "clean_process", "command"]

OUTSIDE = Path(__file__).parent / "outside"

# The smallest run of parts of ours, and one whose parts are all from outside; a metric of theirs is in either.
OURS = ("data=digits", "benchmark.n_tasks=2", "train.epochs=2", "model.hidden=[16]", "progress=false")
ALL = (
    *("benchmark=shifted", "data=bars", "model=wide", "strategy=anchored", "optimizer=rmsprop", "sparsity=even"),
    *("logger=[lines]", "benchmark.n_tasks=3", "train.epochs=2", "model.units=16", "progress=false"),
    "checkpoint.max_share=1",  # these runs are too short to have any otherwise
)

_TABLES = ("_metrics", "_metric_origins", "_found", "_asked_for")


@pytest.fixture(autouse=True)
def nothing_stays_registered(tmp_path: Path) -> Iterator[None]:
    """What a test registers, imports or puts on the path is gone after it."""
    for group in registry.PACKAGES:
        registry.parts(group)  # ours stand there before and after
    registry.metrics()
    tables: list[Any] = [*registry._parts.values(), *(getattr(registry, name) for name in _TABLES)]
    kept = [copy.copy(table) for table in tables]
    path, modules = list(sys.path), set(sys.modules)
    yield
    for table, content in zip(tables, kept, strict=True):
        table.clear()
        table.extend(content) if isinstance(table, list) else table.update(content)
    for group in registry.PACKAGES:  # of which Hydra is only ever told what others have
        ConfigStore.instance().repo.pop(group, None)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def my_parts(tmp_path: Path) -> Path:
    """The package from outside, in the working folder."""
    return Path(shutil.copytree(OUTSIDE / "my_parts", tmp_path / "my_parts"))


Module = Callable[[str, str], Path]

_HEAD = """
from dataclasses import dataclass, field
from typing import Any

from cl_powerprop import *

"""


@pytest.fixture
def module(tmp_path: Path) -> Module:
    """Write a module of a user's into the working folder; it has all public names."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(_HEAD + dedent(text), encoding="utf-8")
        importlib.invalidate_caches()
        return path

    return write


def a_strategy(name: str, options: str = "strength: float = 0.5", more: str = "") -> str:
    """The text of a module that registers a strategy."""
    return f"""
@dataclass(kw_only=True)
class Options(StrategyConfig):
    {options}

@register_strategy({name!r}, Options{more})
class Mine(Strategy):
    "Does as it is told."
"""


@pytest.fixture
def one_line(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """The one line that a command has written to stderr."""

    def read() -> str:
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("cl-powerprop: ")
        return line

    return read


OneLine = Callable[[], str]


@dataclass(frozen=True)
class Called:
    """What calls of the command in another process did: their exit codes, and all that they printed."""

    codes: list[int]
    out: str
    err: str


_SCRIPT = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "avalanche"):
            raise RuntimeError(f"{name} is imported")

heavy, calls = json.loads(sys.argv[1])
if not heavy:
    sys.meta_path.insert(0, Blocker())

from cl_powerprop.cli import main

codes = []
for words in calls:
    try:
        main(words)
    except SystemExit as stopped:
        codes.append(stopped.code or 0)
print(json.dumps(codes))
"""


def call_elsewhere(folder: Path, *calls: Sequence[str], heavy: bool = False, **environment: str) -> Called:
    """Call the command some times in one new process, in which torch and avalanche cannot be imported by default."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    words = [sys.executable, "-c", _SCRIPT, json.dumps([heavy, calls])]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, env=variables)
    assert done.returncode == 0, done.stderr
    out, _, codes = done.stdout.rstrip("\n").rpartition("\n")
    return Called(json.loads(codes), out, done.stderr)
