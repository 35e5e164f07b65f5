"""Parts from outside the project, registered for one test and forgotten after it."""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from cl_powerprop import registry

from ..run.conftest import Command, clean_process, command

__all__ = ["Command", "clean_process", "command"]

OUTSIDE = Path(__file__).parent / "outside"

# Everything from outside: sequence, data, model, strategy, optimizer and sink; a metric is in every run.
ALL = (
    *("benchmark=shifted", "data=bars", "model=wide", "strategy=anchored", "optimizer=rmsprop", "logger=[lines]"),
    *("benchmark.n_tasks=3", "train.epochs=2", "model.units=16", "progress=false"),
)
# The smallest run of parts of ours.
OURS = ("data=digits", "benchmark.n_tasks=2", "train.epochs=2", "model.hidden=[16]", "progress=false")


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    """What a test registers, imports or puts on the path is gone after it."""
    for group in registry.PACKAGES:
        registry.parts(group)  # ours stand there before and after
    registry.metrics()
    tables = [value for name, value in vars(registry).items() if name.startswith("_") and _is_table(name, value)]
    assert {id(table) for table in tables} >= {id(registry._parts), id(registry._metrics), id(registry._asked_for)}
    kept = [
        {key: dict(known) for key, known in registry._parts.items()} if table is registry._parts else copy.copy(table)
        for table in tables
    ]
    store = ConfigStore.instance()
    repo, path, modules = copy.deepcopy(store.repo), list(sys.path), set(sys.modules)
    yield
    for table, content in zip(tables, kept, strict=True):
        table.clear()
        table.extend(content) if isinstance(table, list) else table.update(content)
    store.repo = repo
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if not file.startswith((sys.prefix, sys.base_prefix, str(Path(registry.__file__).parent))):
            del sys.modules[name]
    importlib_forgets()


def _is_table(name: str, value: Any) -> bool:
    return not name.startswith("__") and isinstance(value, dict | set | list)
