"""Run folders whose files are damaged, or cannot be read: what is whole is used, and nothing is lost unsaid."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cl_powerprop import checkpoint_files
from cl_powerprop.checkpoint_files import DAMAGED, FILE, PREVIOUS
from cl_powerprop.experiment import run
from cl_powerprop.run_lock import NAME as LOCK

from .conftest import TINY, Command, tiny_config, tree
from .test_resume import cut_off

pytestmark = pytest.mark.slow

WORDS = ("run", *TINY, "strategy=naive", "benchmark.n_tasks=2", "run_dir=run")
RUN = Path("run")


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """The folder of a run that was cut off in its second task, with two checkpoints."""
    with cut_off(task=1, epoch=0):
        run(tiny_config("strategy=naive", "benchmark.n_tasks=2"), tmp_path / "run")
    assert (tmp_path / "run" / PREVIOUS).exists()
    return tmp_path / "run"


@pytest.mark.parametrize("words", [WORDS, ("resume", "run")], ids=["run", "resume"])
@pytest.mark.parametrize("kind", ["link", "pipe", "EACCES", "EIO"])
def test_a_checkpoint_that_cannot_be_read_just_now_costs_nothing(
    kind: str,
    words: tuple[str, ...],
    cut: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = cut / FILE
    path.rename("away")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to("../away"),
        "pipe": lambda: os.mkfifo(path),
    }
    make.get(kind, lambda: Path("away").rename(path))()
    before = {name for name in os.listdir(cut) if name != LOCK}
    with monkeypatch.context() as patch:
        if kind.startswith("E"):
            opened = checkpoint_files.open_file

            def refuse(file: Path, most: int) -> object:
                if file.name == FILE:
                    raise OSError(getattr(errno, kind), "it is so")
                return opened(file, most)

            patch.setattr(checkpoint_files, "open_file", refuse)
        assert command(*words) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{FILE} cannot be read: " in line
    assert "; mend that, and the run goes on from there, or remove it to go on without it" in line
    assert {name for name in os.listdir(cut) if name != LOCK} == before
    if kind in make:
        path.unlink()
        Path("away").rename(path)
    assert command(*words) == 0
    assert "run: going on after 1 of 2 tasks" in capsys.readouterr().out


@pytest.mark.parametrize("words", [WORDS, ("resume", "run")], ids=["run", "resume"])
def test_damaged_checkpoints_are_named_once_and_kept_until_the_run_is_complete(
    words: tuple[str, ...], cut: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    (cut / FILE).write_bytes(b"one")
    (cut / PREVIOUS).write_bytes(b"two")
    with cut_off(task=0, epoch=0):
        run(tiny_config("strategy=naive", "benchmark.n_tasks=2"), cut)
    told = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert len(told) == 2
    for line, name in zip(told, (FILE, PREVIOUS), strict=True):
        assert f"{name} is damaged" in line
        assert f"it is called {DAMAGED[name]} now" in line
    assert {DAMAGED[name]: (cut / DAMAGED[name]).read_bytes() for name in (FILE, PREVIOUS)} == {
        DAMAGED[FILE]: b"one",
        DAMAGED[PREVIOUS]: b"two",
    }
    (cut / "run.json").unlink()
    (cut / FILE).unlink(missing_ok=True)  # as after a kill before anything was written
    caplog.clear()
    assert command(*words) == 0
    assert "damaged" not in caplog.text
    assert not list(cut.glob("*.damaged.*"))


def test_a_damaged_checkpoint_is_told_once(cut: Path, command: Command, caplog: pytest.LogCaptureFixture) -> None:
    (cut / FILE).write_bytes(b"")
    assert command("resume", "run") == 0
    (line,) = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert line.endswith("; the run goes on from the checkpoint before")


def test_without_a_checkpoint_and_a_config_one_line_says_what_to_do(
    cut: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (FILE, PREVIOUS, "config.yaml"):
        (cut / name).write_bytes((cut / name).read_bytes()[: (cut / name).stat().st_size // 2])
    (cut / "config.yaml").write_bytes((cut / "config.yaml").read_bytes() + b"\n'")  # wherever that ends, it is no YAML
    before = tree(cut)
    assert command("resume", "run") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    for said in (
        f"run/{FILE} is damaged",
        f"run/{PREVIOUS} is damaged",
        "run/config.yaml cannot be read",
        "mend it, or",
    ):
        assert said in line
    assert tree(cut) == before
    assert command(*WORDS) == 0


def test_a_complete_run_without_its_record_says_how_it_is_made_again(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*WORDS) == 0
    (RUN / "run.json").write_bytes(b"\0" * (RUN / "run.json").stat().st_size)
    before = tree(RUN)
    capsys.readouterr()
    for words in (WORDS, ("resume", "run")):
        assert command(*words) != 0
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "run holds a run that has ended, but its run.json is damaged" in line
        assert re.search("make the same run in a new folder: cl-powerprop repeat [^ ]*run$", line)
        assert tree(RUN) == before
    assert command("repeat", "run", "run_dir=again") == 0
    assert tree(Path("again"))["accuracy_matrix.csv"] == before["accuracy_matrix.csv"]


@pytest.mark.parametrize(
    "name", [FILE, PREVIOUS, "checkpoint.rows", "run.json", "config.yaml", "curves.csv", "weights.csv", LOCK]
)
def test_a_folder_in_the_place_of_a_file_is_one_line(
    name: str, cut: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (cut / name).unlink(missing_ok=True)
    (cut / name).mkdir()
    for words in (WORDS, ("resume", "run")):
        assert command(*words) != 0
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"run/{name} is a folder" in line
    (cut / name).rmdir()
    assert command(*WORDS) == 0


def test_what_is_no_run_costs_no_run(cut: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.txt").write_text("")
    Path("empty").mkdir()
    assert command("resume", "notes.txt", "nowhere", "run", "empty", "run") == 1
    captured = capsys.readouterr()
    assert captured.out.count("run: going on after") == 1
    notes, nowhere, empty = captured.err.strip().splitlines()
    assert "notes.txt is not a folder" in notes
    assert "nowhere does not exist" in nowhere
    assert "empty holds no run" in empty
    assert json.loads((cut / "run.json").read_text())["status"] == "complete"


def test_a_link_among_runs_is_a_warning(cut: Path, command: Command, caplog: pytest.LogCaptureFixture) -> None:
    """It is not followed, and no failure: the runs that were asked for are finished."""
    Path("elsewhere").mkdir()
    Path("runs").mkdir()
    cut.rename("runs/mine")
    Path("runs/theirs").symlink_to(Path("elsewhere").absolute())
    assert command("resume", "runs") == 0
    assert caplog.text.count("runs/theirs: a link to another folder, which is not followed") == 1
    assert json.loads(Path("runs/mine/run.json").read_text())["status"] == "complete"
