"""A checkpoint whose bytes are whole, and whose values are not those of a run: one line that names the file."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cl_powerprop import checkpoint_files
from cl_powerprop.checkpoint import read_checkpoint
from cl_powerprop.errors import RunFolderError
from cl_powerprop.training.task_state import fitting

STATE: dict[str, Any] = {
    "format": 4,
    "results": {
        "run": {
            **{"trained_tasks": 1, "trained_experiences": 1, "n_tasks": 2, "run_id": "abc", "started": "2026-01-01"},
            **{"versions": {}, "seconds": {}, "references": {}},
        }
    },
    **{"strategy": {}, "sparsity": {}, "task": {}, "random": {}, "evaluation": {}, "config": {}, "step": 3},
}
OTHERS = [None, True, -1, 1.5, "x", "\x1b]0;x\x07\n", [], [[]]]


def written(folder: Path, state: Any) -> Path:
    checkpoint_files.write(folder, {"weight": torch.zeros(2)}, {"state": json.dumps(state)})
    return folder


def test_the_unchanged_one_is_read(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(written(tmp_path, STATE), pytest.fail)
    assert checkpoint is not None
    assert checkpoint.step == 3


PLACES = [
    *([name] for name in ("results", "strategy", "sparsity", "task", "random", "evaluation", "config")),
    ["results", "run"],
    *(["results", "run", name] for name in ("trained_tasks", "n_tasks", "run_id", "started", "versions", "seconds")),
]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
@pytest.mark.parametrize("value", OTHERS, ids=ascii)
def test_a_value_of_another_kind_is_one_line(tmp_path: Path, place: list[str], value: Any) -> None:
    state = copy.deepcopy(STATE)
    section = state
    for name in place[:-1]:
        section = section[name]
    if isinstance(value, str) and isinstance(section[place[-1]], str):
        value = "\x1b]0;x\x07"
    section[place[-1]] = value
    told: list[str] = []
    assert read_checkpoint(written(tmp_path, state), told.append) is None
    (message,) = told
    assert message.startswith(str(tmp_path / checkpoint_files.FILE))
    assert message.isprintable()
    assert place[-1] in message
    assert "object has no attribute" not in message


@pytest.mark.parametrize("state", [None, 3, "x", [], ["format"], {}, {"format": 4}, {"record": 1}])
def test_a_state_of_another_kind_is_one_line(tmp_path: Path, state: Any) -> None:
    told: list[str] = []
    assert read_checkpoint(written(tmp_path, state), told.append) is None
    (message,) = told
    assert "is damaged: " in message


@pytest.mark.parametrize(
    "fails", [lambda: {}["labels"], lambda: int("x"), lambda: None.items(), lambda: 1 / 0, lambda: torch.zeros(2, -1)]
)
def test_what_does_not_fit_is_one_line_that_names_the_file(fails: Callable[[], Any]) -> None:
    said = pytest.raises(RunFolderError, match=r"^run/checkpoint does not fit its run: ")
    with said as raised, fitting("run/checkpoint"):
        fails()
    assert str(raised.value).isprintable()
