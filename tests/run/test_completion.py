"""Tab completion, as a real bash asks for it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cl_powerprop.completion_scripts import SHELLS, script

from ..doors.conftest import a_strategy
from .conftest import Command

pytestmark = pytest.mark.slow

# What bash sets before it calls a completion function: the line, the position in it, and the words that it was cut to.
ASK = """
source /dev/stdin <<< "$({program} completion bash)"
COMP_LINE={line} COMP_POINT={point}
[[ -n {breaks} ]] && COMP_WORDBREAKS=${{COMP_WORDBREAKS//{breaks}}}
COMP_WORDS=({line_words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_cl_powerprop
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(line: str, folder: Path, point: int | None = None, breaks: str = "") -> list[str]:
    """What bash completes the last word of a line to; it replaces only what follows the last break of words."""
    program = shlex.quote(str(Path(sys.executable).with_name("cl-powerprop")))
    words = " ".join(shlex.quote(word) for word in line.split(" "))
    asked = ASK.format(
        program=program,
        line=shlex.quote(line),
        point=len(line) if point is None else point,
        breaks=shlex.quote(breaks),
        line_words=words,
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=environment)
    assert done.stderr == ""
    return done.stdout.splitlines() if done.stdout.strip() else []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cl-powerprop ru", ["run "]),
        ("cl-powerprop c", ["compare ", "completion "]),
        ("cl-powerprop --ver", ["--version "]),
        ("cl-powerprop run strat", ["strategy=", "strategy."]),
        ("cl-powerprop run strategy=e", ["epn", "ewc"]),
        ("cl-powerprop run -m strategy=naive,e", ["naive,epn", "naive,ewc"]),
        ("cl-powerprop run strategy.g", ["strategy.gamma="]),
        ("cl-powerprop run strategy=packnet strategy.s", ["strategy.shares="]),
        (
            "cl-powerprop run experiment=quickstart/packnet strategy.s",
            [
                "strategy.sparsities=",
                "strategy.search=",
                "strategy.scope=",
                "strategy.score_density=",
                "strategy.score_lr=",
                "strategy.slack=",
                "strategy.strength=",
                "strategy.s_max=",
                "strategy.shares=",
            ],
        ),
        ("cl-powerprop run epn.gam", ["epn.gamma="]),
        ("cl-powerprop run sparsity=s", ["set", "static"]),
        ("cl-powerprop run sparsity=rigl sparsity.de", ["sparsity.decay="]),
        ("cl-powerprop run top_kast.pen", ["top_kast.penalty="]),
        ("cl-powerprop list sp", ["sparsity "]),
        ("cl-powerprop run data=mnist benchmark.sc", ["benchmark.scenario="]),
        ("cl-powerprop run logger=[wandb,t", ["[wandb,tensorboard"]),
        ("cl-powerprop run logger=[wandb] logger.wandb.g", ["logger.wandb.group="]),
        ("cl-powerprop run experiment=quickstart/e", ["quickstart/epn"]),
        ("cl-powerprop run train.compile=", ["true", "false"]),
        ("cl-powerprop run ++model.al", ["++model.alpha="]),
        ("cl-powerprop run hydra/launcher=b", ["basic"]),
        ("cl-powerprop run --cf", ["--cfg "]),
        ("cl-powerprop run --cfg ", ["job ", "hydra ", "all "]),
        ("cl-powerprop run run_dir=", []),  # the shell completes paths itself
        ("cl-powerprop compare ru", []),
        ("cl-powerprop compare --ba", ["--baseline "]),
        ("cl-powerprop list st", ["strategy "]),
        ("cl-powerprop data ver", ["verify "]),
        ("cl-powerprop data verify kmn", ["kmnist "]),
        ("cl-powerprop completion z", ["zsh "]),
        ("cl-powerprop nothing x", []),
    ],
)
def test_bash_completes(line: str, found: list[str], tmp_path: Path) -> None:
    assert completed(line, tmp_path) == found


def test_bash_completes_at_the_cursor_and_where_an_equals_sign_breaks_no_word(tmp_path: Path) -> None:
    line = "cl-powerprop run strategy=e seed=1"
    assert completed(line, tmp_path, point=line.index(" seed")) == ["epn", "ewc"]
    assert completed("cl-powerprop run strategy=e", tmp_path, breaks="=") == ["strategy=epn", "strategy=ewc"]


def test_parts_from_outside_are_completed_too(tmp_path: Path) -> None:
    text = "from dataclasses import dataclass\nfrom cl_powerprop import *\n" + a_strategy("mine")
    (tmp_path / "my_module.py").write_text(text)
    before = "cl-powerprop --import my_module run"
    assert completed(f"{before} strategy=mi", tmp_path) == ["mine"]
    assert completed(f"{before} strategy=mine strategy.", tmp_path) == ["strategy.strength="]
    assert completed(f"{before} mine.", tmp_path) == ["mine.strength="]
    assert completed("cl-powerprop --import no_module run strategy=ep", tmp_path) == ["epn"]


def test_completing_imports_neither_torch_nor_hydra(tmp_path: Path) -> None:
    words = ["completion", "query", "--", "run", "strategy."]
    text = (
        "import sys\nfrom cl_powerprop.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'avalanche', 'hydra', 'omegaconf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[0] == "strategy.gamma="
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_each_shell(shell: str, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("completion", shell) == 0
    assert capsys.readouterr().out == script(shell)


def test_another_shell_is_one_line(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("completion", "tcsh") == 2
    assert "bash, zsh, fish" in capsys.readouterr().err


def test_what_hydras_help_says_of_completion_is_true(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", "--hydra-help") == 0
    assert 'eval "$(cl-powerprop run -sc install=bash)"' in capsys.readouterr().out
    assert command("run", "-sc", "install=bash") == 0
    installed = capsys.readouterr().out
    assert script("bash").strip() in installed
    assert command("run", "-sc", "uninstall=bash") == 0
    asked = f"{installed}\n{capsys.readouterr().out}\ncomplete -p cl-powerprop"
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, check=False)
    assert "no completion specification" in done.stderr
    assert command("run", "-sc", "query=bash") == 2
    assert "cl-powerprop completion bash" in capsys.readouterr().err
