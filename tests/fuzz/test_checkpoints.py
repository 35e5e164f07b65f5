"""Checkpoints from strangers: a run goes on from one, or from the one before, or says in a line why not."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from cl_powerprop import checkpoint_files, experiment
from cl_powerprop.resume import resume

from .cases import cases
from .conftest import Seeds, copied
from .guard import Place, case, watched
from .hostile import Change, Damage, any_damage, as_json, changed, few_changes
from .tensor_changes import TensorChange, tensor_changes
from .test_configs import UNFORESEEN

pytestmark = pytest.mark.slow

FILES = (checkpoint_files.FILE, checkpoint_files.PREVIOUS)


@dataclass(frozen=True)
class InState:
    """The state and the tensors of a checkpoint are changed; its checksum is right."""

    changes: list[Change]
    tensors: list[TensorChange]

    def __call__(self, path: Path, place: Place) -> None:
        found = checkpoint_files.read(path.parent, print)
        assert found is not None
        tensors, metadata = found
        state = changed(json.loads(metadata["state"]), self.changes, place)
        for change in self.tensors:
            tensors = change.apply(tensors)
        kept = {key: text for key, text in metadata.items() if key not in ("sha256", "format")}
        for name in FILES:
            path.with_name(name).unlink()
        checkpoint_files.write(path.parent, tensors, kept | {"state": as_json(state).decode()})


in_state = st.builds(InState, few_changes, st.lists(tensor_changes, max_size=2))


def not_trained(parts: Any, results: Any) -> None:
    """Stands for the loop over tasks."""


def no_program(*_: object, **__: object) -> None:
    """Stands for git, which a run asks for the commit that it runs."""
    raise FileNotFoundError


@cases(
    "checkpoints",
    kind=st.sampled_from(["packnet", "sparse", "ewc"]),
    damage=in_state | in_state | any_damage,
    file=st.sampled_from(FILES),
    trained=st.integers(0, 9),
)
def test_a_run_goes_on_or_says_why_not(
    seeds: Seeds, place: Place, kind: str, damage: Damage, file: str, trained: int
) -> None:
    with case(place) as folder, pytest.MonkeyPatch.context() as patch:
        run = copied(seeds.begun[kind], folder / "run")
        damage(run / file, place)
        patch.setattr(subprocess, "run", no_program)
        if trained:
            patch.setattr(experiment, "learn", not_trained)
            patch.setattr("cl_powerprop.resume.print_runs", lambda _: None)
        lines = watched(place, lambda: resume(["run"]), errors=())
        assert not [line for line in lines if UNFORESEEN.match(line)], lines


def test_the_undamaged_run_goes_on(seeds: Seeds, place: Place) -> None:
    with case(place) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", no_program)
        for kind, begun in seeds.begun.items():
            run = copied(begun, folder / kind)
            assert watched(place, lambda kind=kind: resume([kind]), errors=()) == []
            assert json.loads((run / "run.json").read_text())["status"] == "complete"
            ended, whole = (_tensors(path / "model.safetensors") for path in (run, seeds.complete[kind]))
            assert ended.keys() == whole.keys()
            assert all(torch.equal(ended[name], whole[name]) for name in whole)


def _tensors(path: Path) -> dict[str, Tensor]:
    from cl_powerprop.tensor_file import read_tensors

    return read_tensors(path)[0]
