"""A seed that fails does not stop the others; what cannot work is one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cl_powerprop.errors import ConfigurationError, DivergedError, SeedError
from cl_powerprop.experiment import run
from cl_powerprop.seeds_together import run_together

from ..conftest import Command
from .conftest import DIGITS, digits, numbers, record


def test_a_seed_that_fails_does_not_stop_the_others(taking_turns: list[int], failing: Callable[..., None]) -> None:
    failing(lambda seed: DivergedError("the loss is no longer finite"), 1)
    with pytest.raises(SeedError, match=r"^seed 1: the loss is no longer finite$") as raised:
        run_together(digits("strategy=naive", "seeds_together=3"), "together")
    assert [result.path.name for result in raised.value.complete] == ["seed_0", "seed_2"]
    assert raised.value.__cause__ is None
    assert [record(Path("together", f"seed_{seed}"))["status"] for seed in range(3)] == [
        "complete",
        "failed",
        "complete",
    ]
    alone = run(digits("strategy=naive", "seed=2"), Path("alone"))
    assert numbers(Path("together/seed_2")) == numbers(alone.path)


def test_equal_reasons_are_told_once_and_a_fault_keeps_its_trace(failing: Callable[..., None]) -> None:
    failing(lambda seed: TypeError("of a plugin") if seed == 2 else DivergedError("diverged"), 0, 2, 3)
    with pytest.raises(SeedError) as raised:
        run_together(digits("strategy=naive", "seeds_together=4"), "together")
    assert str(raised.value) == "seeds 0, 3: diverged; seed 2: TypeError: of a plugin"
    assert isinstance(raised.value.__cause__, TypeError)


def test_the_command_names_a_seed_that_fails(
    command: Command, failing: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    failing(lambda seed: DivergedError("the loss is no longer finite"), 1)
    assert command("run", *DIGITS, "strategy=naive", "seeds_together=3", "run_dir=together") == 1
    printed = capfd.readouterr()
    assert printed.err == "cl-powerprop: error: seed 1: the loss is no longer finite\n"
    assert "seed_2" in printed.out


def test_what_all_seeds_refuse_is_one_line(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("run", "data=mnist", "data.root=nowhere", "seeds_together=8", "run_dir=together") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "nowhere" in line
    assert not Path("together").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("seeds_together=0", "seeds_together must be from 1 to 1024, not 0"),
        ("seeds_together=-3", "seeds_together must be from 1 to 1024, not -3"),
        ("seeds_together=1025", "seeds_together must be from 1 to 1024, not 1025"),
        ("seeds_together=1.5", "seeds_together"),
        ("seeds_together=all", "seeds_together"),
        ("seeds_together=null", "seeds_together"),
        ("seeds_together=[0,1]", "seeds_together"),
    ],
)
def test_impossible_numbers_are_one_line(
    option: str, message: str, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command("run", *DIGITS, option, "run_dir=together") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


def test_the_last_seed_is_a_seed_too() -> None:
    with pytest.raises(ConfigurationError, match="seed must be at most"):
        digits(f"seed={10**18}", "seeds_together=2").check()


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"^seeds_together=2 is one process for several runs; torchrun"):
        digits("seeds_together=2").check()
