import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from .conftest import MASKED, tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny() -> Any:
    return tiny_config("strategy=epn", *MASKED, "benchmark.n_tasks=2", "progress=true")


def test_nothing_is_shown_where_the_output_is_no_terminal(
    tiny: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_powerprop.experiment import run

    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    run(tiny, tmp_path / "run")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def force_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    from cl_powerprop.tracking import progress

    screen = io.StringIO()

    def make(**_: Any) -> Console:
        return Console(file=screen, force_terminal=True, force_interactive=True, width=200, color_system=None)

    monkeypatch.setattr(progress, "Console", make)
    return screen


def test_a_terminal_shows_task_epoch_loss_accuracy_and_capacity(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cl_powerprop.experiment import run

    screen = force_terminal(monkeypatch)
    result = run(tiny, tmp_path / "run")
    shown = screen.getvalue()
    for part in ("task 2/2", "epoch 2/2", "loss ", "accuracy ", "capacity ", "left"):
        assert part in shown
    last = shown[shown.rindex("task 2/2") :]
    assert f"capacity {result.record['metrics']['capacity_used']:.3f}" in last
    curves = (tmp_path / "run" / "curves.csv").read_text().splitlines()
    loss = [float(line.split(",")[-1]) for line in curves if ",train,loss," in line][-1]
    assert f"loss {loss:.3f}" in last


def test_progress_false_is_quiet_on_a_terminal_too(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop.experiment import run

    screen = force_terminal(monkeypatch)
    tiny.progress = False
    run(tiny, tmp_path / "run")
    assert screen.getvalue() == ""
