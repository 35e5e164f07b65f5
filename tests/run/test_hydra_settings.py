"""Settings of Hydra's own that other Hydra programs take: they work here too, or are named."""

import json
from pathlib import Path

import pytest

from cl_powerprop.errors import RunFolderError
from cl_powerprop.run_folder import RunFolder

from .conftest import Command, tree

pytestmark = pytest.mark.slow

QUICK = ("data=digits", "strategy=untrained", "benchmark.n_tasks=1", "progress=false", "save_model=false")
HYDRA = {"config.yaml", "hydra.yaml", "overrides.yaml"}


def status(folder: str) -> str:
    return str(json.loads(Path(folder, "run.json").read_text())["status"])


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("hydra.output_subdir=.hydra", {f".hydra/{name}" for name in HYDRA}),
        ("hydra.output_subdir=hydra/own", {f"hydra/own/{name}" for name in HYDRA}),
        ("hydra/job_logging=default", {"cl-powerprop.log"}),
        ("hydra/hydra_logging=default", set()),
        ("hydra.verbose=true", set()),
        ("hydra.job.chdir=true", set()),
    ],
)
def test_what_hydra_writes_itself_lies_beside_the_run(word: str, written: set[str], command: Command) -> None:
    assert command("run", *QUICK, word, "run_dir=run") == 0
    assert status("run") == "complete"
    assert written <= set(tree(Path("run")))
    before = tree(Path("run"))
    assert command("run", *QUICK, word, "run_dir=run", "seed=1") == 2, "a run is never overwritten"
    after = tree(Path("run"))
    assert {name: after[name] for name in before if not name.endswith(".log")} == {
        name: content for name, content in before.items() if not name.endswith(".log")
    }
    assert json.loads(Path("run/run.json").read_text())["seed"] == 0


def test_in_a_multirun_too(command: Command) -> None:
    words = ("hydra.output_subdir=.hydra", "hydra/job_logging=default", "hydra.job.chdir=true")
    assert command("run", "-m", *QUICK, *words, "seed=0,1", "run_dir=sweep", "hydra/launcher=basic") == 0
    assert [status(f"sweep/{job}") for job in (0, 1)] == ["complete", "complete"]


def test_hydras_files_among_the_runs_are_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("", "."):
        assert command("run", *QUICK, f"hydra.output_subdir={folder}", "run_dir=run") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"hydra.output_subdir='{folder}'" in line


def test_paths_begin_where_the_command_was_called(command: Command, tmp_path: Path) -> None:
    words = (
        "hydra.job.chdir=true",
        "strategy=naive",
        "train.epochs=1",
        "references=[untrained]",
        "references_dir=other",
    )
    assert command("run", *QUICK, *words, "run_dir=some/run") == 0
    assert Path.cwd() == tmp_path
    assert list(Path("other").glob("untrained-*/run.json"))
    assert not Path("some/run/other").exists()


def test_a_folder_with_something_else_is_taken(tmp_path: Path) -> None:
    for name in ("notes.txt", "hydra.yaml", "sub/notes.txt", "sub/config.yaml/x"):
        folder = tmp_path / name.replace("/", "-").replace(".", "-")
        file = folder / name
        file.parent.mkdir(parents=True)
        file.write_text("mine")
        with pytest.raises(RunFolderError, match="exists already"):
            RunFolder(folder)
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    with pytest.raises(RunFolderError):
        RunFolder(tmp_path / "empty")


def test_hydras_files_have_no_secrets(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the environment nor of the command line."""
    token = "ghp_" + "a1B2" * 6
    monkeypatch.setenv("DB_PASS", "hunter2")
    words = ("+logger.wandb.group=hunter2", f"+logger.wandb.name={token}", "+logger.wandb.job_type='mysql://u:p#x@h/'")
    for number, extra in enumerate([(), ("references_dir=/hunter2",)]):
        folder = tmp_path / str(number)
        given = ("logger=[wandb]", "logger.wandb.mode=disabled", *(word.lstrip("+") for word in words), *extra)
        assert command("run", *QUICK, *given, "hydra.output_subdir=.hydra", f"run_dir={folder}") == 0
        content = b"".join((folder / ".hydra" / name).read_bytes() for name in HYDRA)
        assert b"strategy" in content
        for secret in (b"hunter2", token.encode(), b"p#x"):
            assert secret not in content
            assert secret not in (folder / "run.json").read_bytes() + (folder / "config.yaml").read_bytes()
