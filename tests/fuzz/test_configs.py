"""Configs from strangers: read by `repeat` and `resume`, and given to Hydra by `--config-dir`; nothing is trained."""

import contextlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import strategies as st

from cl_powerprop import experiment
from cl_powerprop.cli import main
from cl_powerprop.config import RunConfig
from cl_powerprop.errors import UserError
from cl_powerprop.repeat import repeat
from cl_powerprop.resume import resume
from cl_powerprop.stored_config import load_config

from .cases import cases
from .conftest import Seeds, copied
from .guard import Place, case, watched
from .hostile import Damage, any_damage
from .test_run_folders import in_yaml

pytestmark = pytest.mark.slow

UNFORESEEN = re.compile(r"\S+: [A-Z]\w*: ")  # how resume shows an error that it did not expect


def untrained(config: RunConfig, path: Path | None = None, *_: object, **__: object) -> experiment.Result:
    """Stands for a run: it does what comes before the network is made, and shows what it was given."""
    config.check()
    Path("given").write_text(repr(config), errors="backslashreplace")
    return experiment.Result(Path(config.run_dir if path is None else path), {})


@pytest.fixture(autouse=True)
def no_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "run", untrained)


@cases(
    "configs",
    kind=st.sampled_from(["packnet", "sparse", "ewc"]),
    damage=in_yaml | in_yaml | any_damage,
    how=st.sampled_from(["load", "repeat", "repeat", "resume"]),
)
def test_a_config_is_read_or_is_one_line(seeds: Seeds, place: Place, kind: str, damage: Damage, how: str) -> None:
    with case(place) as folder:
        run = copied((seeds.begun if how == "resume" else seeds.complete)[kind], folder / "run")
        damage(run / "config.yaml", place)

        def act() -> list[str]:
            match how:
                case "load":
                    load_config(run).check()
                case "repeat":
                    repeat(run, ["seed=3", "run_dir=new"])
                case _:
                    with pytest.MonkeyPatch.context() as patch:
                        patch.setattr("cl_powerprop.resume.print_runs", lambda _: None)
                        return resume(["run"])
            return []

        lines = watched(place, act, errors=(UserError,))
        assert not [line for line in lines if UNFORESEEN.match(line)], lines


@cases(
    "config folders",
    damage=in_yaml | in_yaml | any_damage,
    file=st.sampled_from(["config.yaml", "model/mine.yaml"]),
)
def test_a_folder_of_configs_executes_nothing(seeds: Seeds, place: Place, damage: Damage, file: str) -> None:
    with case(place) as folder:
        (folder / "theirs" / "model").mkdir(parents=True)
        (folder / "theirs" / "config.yaml").write_bytes((seeds.complete["packnet"] / "config.yaml").read_bytes())
        (folder / "theirs" / "model" / "mine.yaml").write_text("name: mlp\nhidden: [9]\n")
        damage(folder / "theirs" / file, place)
        words = ["run", "--config-dir", "theirs", "--config-name", "config", "run_dir=new", "progress=false"]
        if file != "config.yaml":
            words = ["run", "--config-dir", "theirs", "model=mine", "run_dir=new", "progress=false"]
        lines = watched(place, lambda: called(words), errors=(), follows=True)
        assert len(lines) <= 1


def called(words: list[str]) -> list[str]:
    """Call the command; return the error that it ends in."""
    error = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    GlobalHydra.instance().clear()
    try:
        with contextlib.redirect_stderr(error), pytest.MonkeyPatch.context() as patch:
            patch.setattr("cl_powerprop.analysis.summary.print_runs", lambda _: None)
            main(words)
    except SystemExit as stop:
        code: Any = stop.code
        lines = [line for line in error.getvalue().splitlines() if "error: " in line]
        assert bool(code) == bool(lines), error.getvalue()
        assert "Traceback" not in error.getvalue(), error.getvalue()
        return lines
    finally:
        root.handlers[:], root.level = handlers, level
        GlobalHydra.instance().clear()
    return []
