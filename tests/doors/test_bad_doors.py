"""What goes wrong at a door is one line and exit code 2, and nothing of it stays."""

import importlib
import sys
from pathlib import Path

import pytest

from cl_powerprop import registry
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.stored_config import load_config

from .conftest import OURS, Command, Module, OneLine, a_strategy, call_elsewhere

Capture = pytest.CaptureFixture[str]


def test_a_module_that_is_not_there(command: Command, one_line: OneLine) -> None:
    assert command("--import", "nowhere", "list") == 2
    assert one_line() == "cl-powerprop: error: --import nowhere: ModuleNotFoundError: No module named 'nowhere'"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def learn(:", "SyntaxError: invalid syntax (broken.py, line "),
        ("import not_installed", "ModuleNotFoundError: No module named 'not_installed'"),
        ("from cl_powerprop import Stratgy", "ImportError: cannot import name 'Stratgy' from 'cl_powerprop'"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("raise KeyError", "KeyError"),
        ("import sys; sys.exit()", "SystemExit"),
        ("import sys; sys.exit('no GPU here')", "SystemExit: no GPU here"),
    ],
)
@pytest.mark.parametrize("words", [("list",), ("run", *OURS, "run_dir=run"), ("resume", "run")], ids=lambda it: it[0])
def test_a_module_that_cannot_be_imported(
    module: Module, command: Command, one_line: OneLine, text: str, said: str, words: tuple[str, ...]
) -> None:
    module("broken", text)
    assert command("--import", "broken", *words) == 2
    assert one_line().startswith(f"cl-powerprop: error: --import broken: {said}")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "words", [("--import",), ("--import=",), ("--import", "--help"), ("--import", "a", "--import")]
)
def test_an_import_without_a_module(
    command: Command, one_line: OneLine, words: tuple[str, ...], module: Module
) -> None:
    module("a", "")
    assert command(*words) == 2
    assert "--import needs the name of a module" in one_line()


@pytest.mark.parametrize("name", ["./mine", "mine.py", "/abs/mine", ".mine"])
def test_a_path_instead_of_a_module(command: Command, module: Module, one_line: OneLine, name: str) -> None:
    module("mine", "")
    assert command("--import", name, "list") == 2
    assert f"--import {name}: " in one_line()


DOORS = {
    "strategy": ("@register_strategy({name!r}, C)\nclass Mine(Strategy): pass", "StrategyConfig"),
    "benchmark": ("@register_sequence({name!r}, C)\ndef mine(config, data, seed): pass", "SequenceConfig"),
    "data": ("@register_dataset({name!r}, C)\nclass Mine(Dataset): pass", "DataConfig"),
    "model": ("@register_model({name!r}, C)\ndef mine(shape, *, bias): pass", "ModelConfig"),
    "optimizer": ("@register_optimizer({name!r}, C)\ndef mine(groups, config): pass", "OptimizerConfig"),
    "sparsity": (
        "@register_sparsity({name!r}, C)\ndef mine(model, optimizer, config, steps, seed): pass",
        "SparsityConfig",
    ),
    "logger": ("@register_sink({name!r}, C)\nclass Mine: pass", "SinkConfig"),
}


def part(group: str, name: str, options: str = "pass", base: str | None = None, decorator: str | None = None) -> str:
    """The text of a module that registers a part of some group."""
    door, own_base = DOORS[group]
    decorator = "@dataclass(kw_only=True)" if decorator is None else decorator
    return f"{decorator}\nclass C({own_base if base is None else base}):\n    {options}\n\n{door.format(name=name)}\n"


@pytest.mark.parametrize(
    ("group", "taken"),
    [
        ("strategy", "epn"),
        ("benchmark", "permuted"),
        ("benchmark", "permuted_mnist"),  # what permuted was called
        ("data", "digits"),
        ("model", "mlp"),
        ("optimizer", "adamw"),
        ("sparsity", "rigl"),
        ("logger", "wandb"),
    ],
)
def test_a_name_of_ours_is_taken(group: str, taken: str, module: Module, command: Command, one_line: OneLine) -> None:
    module("mine", part(group, taken))
    assert command("--import", "mine", "list") == 2
    line = one_line()
    assert f"--import mine: {group} {taken!r} is registered already, by cl_powerprop." in line
    assert line.endswith("; mine must choose another name")
    assert registry.find(group, taken).is_ours


@pytest.mark.parametrize("group", DOORS)
def test_two_modules_cannot_have_the_same_name(group: str, module: Module, command: Command, one_line: OneLine) -> None:
    module("one", part(group, "same"))
    module("two", part(group, "same"))
    assert command("--import", "one", "--import", "two", "list") == 2
    assert f"--import two: {group} 'same' is registered already, by one; two must choose another name" in one_line()


def test_another_name_is_taken_too(module: Module, command: Command, one_line: OneLine) -> None:
    module("one", a_strategy("first", more=", aliases=['second']"))
    module("two", a_strategy("second"))
    module("three", a_strategy("third", more=", aliases=['naive']"))
    assert command("--import", "one", "--import", "two", "list") == 2
    assert "strategy 'second' is registered already, by one" in one_line()
    assert command("--import", "three", "list") == 2
    assert "strategy 'naive' is registered already, by cl_powerprop.strategies.naive" in one_line()


A_METRIC = "register_metric(Metric({name!r}, 'mine', '', 'max', lambda run: 0.5))"


@pytest.mark.parametrize("name", ["average_accuracy", "seconds.total", "peak_memory_mb", "seed", "strategy", "status"])
def test_a_metric_of_ours_or_a_fact_is_taken(name: str, module: Module, command: Command, one_line: OneLine) -> None:
    before = registry.metrics()
    module("mine", A_METRIC.format(name=name))
    assert command("--import", "mine", "list") == 2
    assert f"--import mine: metric {name!r}" in one_line()
    assert registry.metrics() == before


def test_two_modules_cannot_have_the_same_metric(module: Module, command: Command, one_line: OneLine) -> None:
    module("one", A_METRIC.format(name="same"))
    module("two", A_METRIC.format(name="same"))
    assert command("--import", "one", "--import", "two", "list") == 2
    assert "metric 'same' is registered already, by one; two must choose another name" in one_line()


@pytest.mark.parametrize("group", DOORS)
def test_an_option_without_a_type(group: str, module: Module, command: Command, one_line: OneLine) -> None:
    module("mine", part(group, "mine", "gamma = 0.9"))
    assert command("--import", "mine", "list") == 2
    assert one_line().endswith(f"{group} 'mine': C.gamma has no type; write gamma: TYPE = 0.9")


@pytest.mark.parametrize("group", DOORS)
@pytest.mark.parametrize(
    ("options", "base", "decorator"),
    [
        ("gamma: float = 0.9", "", "@dataclass"),  # derived from nothing
        ("gamma: float = 0.9", None, ""),  # whose own options would not be seen
        ("gamma: float = 0.9", "object", ""),
    ],
)
def test_a_config_of_the_wrong_kind(
    group: str, options: str, base: str | None, decorator: str, module: Module, command: Command, one_line: OneLine
) -> None:
    module("mine", part(group, "mine", options, base, decorator))
    assert command("--import", "mine", "list") == 2
    assert one_line().endswith(f"{group} 'mine': its config C is not a dataclass derived from {DOORS[group][1]}")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{'gamma': 0.9}", "its config {'gamma': 0.9} is not a dataclass derived from StrategyConfig"),
        ("StrategyConfig(name='mine')", "is not a dataclass derived from StrategyConfig"),
        ("None", "its config None is not a dataclass derived from StrategyConfig"),
        ("ModelConfig", "its config ModelConfig is not a dataclass derived from StrategyConfig"),
    ],
)
def test_a_config_that_is_no_class_of_options(
    config: str, said: str, module: Module, command: Command, one_line: OneLine
) -> None:
    module("mine", f"@register_strategy('mine', {config})\nclass Mine(Strategy): pass")
    assert command("--import", "mine", "list") == 2
    assert said in one_line()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("kinds: set[int] | None = None", "Unexpected type annotation: set[int]"),
        ("loss: type = float", "Unexpected type annotation"),
        ("choice: int | list[int] = 3", "Unions of containers are not supported"),
        ("strength: 'Undefined' = None", "name 'Undefined' is not defined"),
        ("strength: int = 'x'", "Value 'x' of type 'str' could not be converted to Integer"),
        ("strength: int = field(default_factory=lambda: 1 / 0)", "division by zero"),
        ("folder: Path = Path('x')", "config.yaml cannot hold the type Path; take str"),
        ("folders: list[Path] | None = None", "config.yaml cannot hold the type Path; take str"),
        ("mode: Mode = Mode.FAST", "config.yaml cannot hold the type Mode; take str"),
        ("inner: Inner = field(default_factory=Inner)", "config.yaml cannot hold the type bytes; take str"),
        ("check: bool = True", "C.check takes the place of StrategyConfig.check"),
    ],
)
def test_an_annotation_that_no_config_can_have(
    options: str, said: str, module: Module, command: Command, one_line: OneLine
) -> None:
    kinds = """
from enum import Enum
from pathlib import Path

class Mode(Enum):
    FAST = 1

@dataclass
class Inner:
    key: bytes = b""

"""
    module("mine", kinds + part("strategy", "mine", options))
    assert command("--import", "mine", "list") == 2
    line = one_line()
    assert "--import mine: strategy 'mine': C" in line
    assert said in line


@pytest.mark.parametrize(
    "name", ["", "my.own", "my/own", "my own", "3rd", "_mine", "Übung", "null", "True", "a,b", "a=b"]
)
@pytest.mark.parametrize("group", ["strategy", "benchmark", "logger"])
def test_a_name_that_cannot_be_typed(
    name: str, group: str, module: Module, command: Command, one_line: OneLine
) -> None:
    module("mine", part(group, name))
    assert command("--import", "mine", "list") == 2
    assert f"{group} {name!r}: a name begins with a letter" in one_line()


@pytest.mark.parametrize(
    ("group", "name", "said"),
    [
        ("strategy", "train", "a config has something else"),
        ("model", "seed", "a config has something else"),
        ("optimizer", "model", "a config has something else"),
        ("strategy", "hydra", "a config has something else"),
        ("strategy", "mlp", "the group model has something else"),
        ("model", "sgd", "the group optimizer has something else"),
        ("optimizer", "naive", "the group strategy has something else"),
        ("sparsity", "epn", "the group strategy has something else"),
        ("strategy", "rigl", "the group sparsity has something else"),
    ],
)
def test_a_name_by_which_no_options_could_be_given(
    group: str, name: str, said: str, module: Module, command: Command, one_line: OneLine
) -> None:
    module("mine", part(group, name))
    assert command("--import", "mine", "list") == 2
    assert one_line().endswith(f"{group} {name!r}: {said} of that name; choose another")


@pytest.mark.parametrize("name", ["seed", "metrics", "status", "n_tasks", "schema_version"])
def test_a_sink_cannot_write_over_what_a_run_says(
    name: str, module: Module, command: Command, one_line: OneLine
) -> None:
    module("mine", part("logger", name))
    assert command("--import", "mine", "list") == 2
    assert f"logger {name!r}: run.json has something else of that name" in one_line()


def test_names_that_are_unusual_and_work(module: Module, command: Command, capsys: Capture) -> None:
    module("mine", a_strategy("Own-v2_1", more=", aliases=['own']"))
    words = ("run", *OURS, "save_model=false")
    assert command("--import", "mine", *words, "strategy=Own-v2_1", "Own-v2_1.strength=2", "run_dir=a") == 0
    assert "name: Own-v2_1\n  strength: 2.0" in Path("a/config.yaml").read_text()
    assert command("--import", "mine", *words, "strategy=own", "strategy.strength=3", "run_dir=b") == 0
    assert "name: Own-v2_1\n  strength: 3.0" in Path("b/config.yaml").read_text(), "by its other name"
    Path("b/config.yaml").write_text(Path("b/config.yaml").read_text().replace("Own-v2_1", "own"))
    assert load_config(Path("b")).strategy.name == "Own-v2_1"
    capsys.readouterr()
    assert command("--import", "mine", "list") == 0
    assert "  Own-v2_1     Does as it is told. (mine)\n" in capsys.readouterr().out


def test_what_a_failing_module_registered_is_forgotten(module: Module, command: Command, one_line: OneLine) -> None:
    before = {group: registry.parts(group) for group in registry.PACKAGES}, registry.metrics()
    texts = [part(group, f"half-{group}") for group in DOORS]
    module("half", "\n".join([*texts, A_METRIC.format(name="half"), "raise RuntimeError('disk full')"]))
    assert command("--import", "half", "list") == 2
    assert one_line() == "cl-powerprop: error: --import half: RuntimeError: disk full"
    assert ({group: registry.parts(group) for group in registry.PACKAGES}, registry.metrics()) == before
    assert registry.imported_modules() == []
    module("half", part("strategy", "half"))  # mended
    registry.import_modules(["half"])
    assert registry.find("strategy", "half").origin == "half"


def test_ours_stay_when_a_module_fails_before_anything_was_looked_for(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that fails may have been the first to ask for ours."""
    ours = {group: set(registry.parts(group)) for group in registry.PACKAGES}
    module("half", part("strategy", "half") + A_METRIC.format(name="half") + "\nraise RuntimeError")
    for known in registry._parts.values():
        known.clear()
    registry._found.clear()
    for name in [name for name in sys.modules if name.startswith(tuple(registry.PACKAGES.values()))]:
        if not name.endswith((".base", ".dataset")):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError, match="--import half: RuntimeError"):
        registry.import_modules(["half"])
    assert {group: set(registry.parts(group)) for group in registry.PACKAGES} == ours


def test_files_of_a_failing_package_are_imported_anew(my_parts: Path) -> None:
    """Those that went well are in `sys.modules`, and would register nothing a second time."""
    sequence = (my_parts / "sequence.py").read_text()
    (my_parts / "sequence.py").write_text("raise ValueError('not yet')")
    with pytest.raises(ConfigurationError, match="--import my_parts: ValueError: not yet"):
        registry.import_modules(["my_parts"])
    assert "wide" not in registry.parts("model")
    (my_parts / "sequence.py").write_text(sequence)
    importlib.invalidate_caches()
    registry.import_modules(["my_parts"])
    assert {"shifted", "wide", "bars"} <= {
        name for group in ("benchmark", "model", "data") for name in registry.parts(group)
    }


def test_a_module_that_is_run_again_replaces_its_parts(module: Module, command: Command) -> None:
    path = module("mine", a_strategy("mine") + A_METRIC.format(name="mine"))
    registry.import_modules(["mine"])
    first, metric = registry.find("strategy", "mine"), registry.metrics()["mine"]
    path.write_text(path.read_text().replace("strength: float = 0.5", "strength: float = 0.75  # changed"))
    importlib.reload(sys.modules["mine"])
    second = registry.find("strategy", "mine")
    assert second.make is not first.make
    assert second.defaults() == {"name": "mine", "strength": 0.75}
    assert registry.metrics()["mine"] is not metric
    assert command("run", *OURS, "strategy=mine", "run_dir=run") == 0
    assert "strength: 0.75" in Path("run/config.yaml").read_text()


def test_a_notebook_cell_that_is_run_again() -> None:
    cell = "from dataclasses import dataclass\nfrom cl_powerprop import *\n" + a_strategy("cell")
    notebook = {"__name__": "__main__"}
    for strength in ("0.5", "0.25"):
        exec(cell.replace("0.5", strength), notebook)
    assert registry.find("strategy", "cell").defaults()["strength"] == 0.25


def test_a_name_that_nobody_has(command: Command, one_line: OneLine) -> None:
    for group in DOORS:
        word = "logger=[mine]" if group == "logger" else f"{group}=mine"
        assert command("run", *[each for each in OURS if not each.startswith("data=")], word, "run_dir=run") == 2
        line = one_line()
        assert f"unknown {group} 'mine'; choose from: " in line
        assert "--import" in line


@pytest.mark.parametrize(
    "metric",
    [
        "Metric('mine', 'mine', '', 'up', len)",
        "Metric('mine', 'mine', '', 'max', len, 'top')",
        "Metric('path', 'mine', '', 'max', lambda run: 1)",
        "Metric('seed', 'mine', '', 'max', lambda run: 1)",
        "len",
    ],
)
def test_a_metric_that_no_table_could_show(metric: str, command: Command, one_line: OneLine, module: Module) -> None:
    module("mine", f"from cl_powerprop import Metric, register_metric\nregister_metric({metric})\n")
    assert command("--import", "mine", "list") == 2
    assert "metric" in one_line()


def test_looking_up_a_logger_imports_no_torch(tmp_path: Path) -> None:
    called = call_elsewhere(tmp_path, ["run", "logger=[wandb,tensorboard]", "logger.wandb.timeout=x"])
    assert called.codes == [2]
    assert "Value 'x'" in called.err
