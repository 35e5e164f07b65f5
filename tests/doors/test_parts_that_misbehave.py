"""Parts from outside that go wrong while a run is going on: training is never lost for a sink or a metric."""

import json
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop import registry, run

from .conftest import OURS, Command, Module, OneLine

pytestmark = pytest.mark.slow

NAIVE = [*OURS, "strategy=naive", "save_model=false"]

SINK = """
@dataclass(kw_only=True)
class Options(SinkConfig):
    label = "My sink"
    dir: str = "."

@register_sink("mine", Options)
class Mine:
    def __init__(self, config, run):
        self.run = run
        self.call("opened")
    def write(self, row):
        self.call("write")
    def flush(self):
        self.call("flush")
    def close(self):
        self.call("close")
    def abort(self):
        (self.run.folder / "aborted").touch()
    def call(self, name):
        if name == {name!r}:
            {fault}
"""


def run_with(text: str, module: Module, *words: str) -> Any:
    module("mine", text)
    registry.import_modules(["mine"])
    return run([*NAIVE, *words], "run").record


@pytest.mark.parametrize("name", ["opened", "write", "flush", "close"])
def test_a_sink_that_raises_is_left_out_and_the_run_goes_on(name: str, module: Module) -> None:
    text = SINK.replace("{name!r}", repr(name)).replace("{fault}", "raise RuntimeError('no space left')")
    record = run_with(text, module, "logger=[mine]")
    assert record["status"] == "complete"
    assert record["messages"] == ["My sink failed and is left out from here on: no space left"]
    assert record["metrics"]["average_accuracy"] > 0.1
    assert Path("run/aborted").exists() == (name != "opened")


def test_a_sink_that_remembers_what_json_cannot_hold(module: Module) -> None:
    text = SINK.replace("{name!r}", "'opened'").replace("{fault}", "self.run.memory['file'] = object()")
    record = run_with(text, module, "logger=[mine]")
    assert record["status"] == "complete"
    assert record["messages"] == []
    assert record["mine"]["file"].startswith("<object object"), "it is kept as text"


METRIC = "import numpy as np\nregister_metric(Metric('mine', 'my metric', '', 'max', lambda run: {value}))"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("np.float32(0.5)", 0.5),
        ("np.int64(3)", 3.0),
        ("np.array(0.25)", 0.25),
        ("run.matrix[-1].min() * 0", 0.0),
        ("None", None),
        ("float('nan')", None),
        ("float('inf')", None),
    ],
)
def test_a_metric_returns_any_number(value: str, kept: float | None, module: Module) -> None:
    record = run_with(METRIC.format(value=value), module)
    written = json.loads(Path("run/run.json").read_text())
    assert written["metrics"]["mine"] == kept
    assert record["status"] == "complete"
    assert record["messages"] == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("'high'", "could not convert string to float: 'high'"),
        ("run.matrix[-1]", "TypeError: only "),
        ("run.matrx", "AttributeError: 'Measurements' object has no attribute 'matrx'"),
    ],
)
def test_a_metric_that_fails_is_left_out(
    value: str, said: str, module: Module, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """After hours of training, say."""
    record = run_with(METRIC.format(value=value), module)
    assert record["status"] == "complete"
    assert record["metrics"]["mine"] is None
    (message,) = record["messages"]
    assert message.startswith("the metric mine failed and is left out: ")
    assert said in message
    capsys.readouterr()
    if value.startswith("1"):
        assert command("compare", "run", "--out", "out") == 0
        assert "permuted on digits" in capsys.readouterr().out


def test_a_headline_metric_is_in_every_table(
    module: Module, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    module("mine", "register_metric(Metric('mine', 'my own number', '%', 'min', lambda run: 0.25, 'headline'))")
    assert command("--import", "mine", "run", *NAIVE, "run_dir=run") == 0
    assert "25.0 %" in capsys.readouterr().out
    assert command("--import", "mine", "compare", "run", "--out", "out") == 0
    shown = capsys.readouterr().out
    assert "25.0 %" in shown
    assert command("compare", "run", "--out", "out", "--metric", "nine") == 2
    assert "nine" in capsys.readouterr().err


STRATEGY = """
from cl_powerprop.errors import ConfigurationError

@dataclass(kw_only=True)
class Options(StrategyConfig):
    strength: float = 0.5

    def check(self, epochs):
        if self.strength > epochs:
            raise ConfigurationError(f"strategy.strength must be at most {epochs}, not {self.strength}")

@register_strategy("mine", Options)
class Mine(Strategy):
    def plugins(self, context):
        if self.config.strength < 0:
            raise RuntimeError("a fault of the strategy's own")
        return super().plugins(context)
"""


def test_a_check_of_their_own_is_one_line(module: Module, command: Command, one_line: OneLine) -> None:
    module("mine", STRATEGY)
    words = [word for word in NAIVE if not word.startswith("strategy=")]
    assert command("--import", "mine", "run", *words, "strategy=mine", "mine.strength=3", "run_dir=run") == 2
    assert one_line() == "cl-powerprop: error: strategy.strength must be at most 2, not 3.0"


def test_a_fault_of_their_own_shows_where_it_is(
    module: Module, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    module("mine", STRATEGY)
    words = [word for word in NAIVE if not word.startswith("strategy=")]
    assert command("--import", "mine", "run", *words, "strategy=mine", "mine.strength=-1", "run_dir=run") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "cl-powerprop: error: a fault of the strategy's own"
    assert any("mine.py" in line for line in lines)
