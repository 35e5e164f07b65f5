"""A config names parts and makes nothing be imported: whoever runs a stranger's config runs none of their code."""

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_powerprop import compose, load_task, run
from cl_powerprop.config import repeatable_yaml
from cl_powerprop.errors import ConfigurationError, UserError
from cl_powerprop.stored_config import load_config

from ..run.test_resume import cut_off
from .conftest import OURS, Command, Module, OneLine

pytestmark = pytest.mark.slow

THEIRS = {
    "strategy": "anchored",
    "benchmark": "shifted",
    "data": "bars",
    "model": "wide",
    "optimizer": "rmsprop",
}


def write_config(folder: str, **changed: Any) -> Path:
    """Write a config of ours with something of theirs in it."""
    Path(folder).mkdir()
    values = yaml.safe_load(_config_of_ours()) | changed
    Path(folder, "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return Path(folder)


@functools.cache
def _config_of_ours() -> str:
    return repeatable_yaml(compose([*OURS, "strategy=naive"]))


@pytest.fixture(autouse=True)
def trap(module: Module) -> None:
    """Lies where Python looks, and cannot be imported without being noticed."""
    module("trap", "raise SystemExit('imported')")
    sys.path.insert(0, str(Path.cwd()))


@pytest.mark.parametrize("group", [*THEIRS, "logger"])
def test_a_part_that_nobody_has_imported_is_one_line(
    group: str, my_parts: Path, command: Command, one_line: OneLine
) -> None:
    name = THEIRS.get(group, "lines")
    folder = write_config("theirs", **{group: {"lines": {}} if group == "logger" else {"name": name}})
    said = f"unknown {group} {name!r}; choose from: "
    assert command("run", "--config-dir", folder, "--config-name", "config", "run_dir=run") == 2
    line = one_line()
    assert said in line
    assert "--import" in line
    for read in (load_config, lambda path: load_task(path, 0)):
        with pytest.raises(ConfigurationError, match=rf"^{said}.*--import"):
            read(folder)
    assert not {name for name in sys.modules if name.startswith("my_parts")}


def test_a_run_of_theirs_is_not_resumed_without_their_module(
    my_parts: Path, command: Command, one_line: OneLine
) -> None:
    with cut_off(task=1, epoch=0):
        run([*OURS, "strategy=naive", "save_model=false"], "run")
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("name: naive", "name: anchored"))
    Path("run", "checkpoint.safetensors").unlink(missing_ok=True)
    assert command("resume", "run") == 1
    line = one_line()
    assert "run/config.yaml cannot be used: unknown strategy 'anchored'; choose from: " in line
    assert "--import" in line


@pytest.mark.parametrize("name", ["trap", "trap.Strategy", "trap:Strategy", "trap/strategy", "../trap", 3, ["trap"]])
@pytest.mark.parametrize("group", ["strategy", "logger"])
def test_the_name_of_a_module_imports_nothing(name: Any, group: str) -> None:
    name = str(name) if group == "logger" else name
    changed = {"logger": {name: {}}} if group == "logger" else {group: {"name": name}}
    with pytest.raises(ConfigurationError, match=f"unknown {group} "):
        load_config(write_config("theirs", **changed))
    assert "trap" not in sys.modules


@pytest.mark.parametrize(
    "changed",
    [
        {"strategy": {"name": "naive", "_target_": "trap.Strategy"}},
        {"strategy": {"_target_": "trap.Strategy"}},
        {"_target_": "trap.Strategy"},
        {"import": ["trap"]},
        {"imports": "trap"},
        {"modules": ["trap"]},
        {"plugins": ["trap"]},
    ],
)
def test_no_key_imports_anything(changed: dict[str, Any], command: Command, one_line: OneLine) -> None:
    folder = write_config("theirs", **changed)
    with pytest.raises(UserError):
        load_config(folder)
    assert command("run", "--config-dir", folder, "--config-name", "config", "run_dir=run") == 2
    assert "unknown " in one_line()
    assert "trap" not in sys.modules


def test_yaml_that_calls_something_is_not_obeyed() -> None:
    folder = write_config("theirs")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text + "call: !!python/object/apply:importlib.import_module [trap]\n")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_config(folder)
    assert "trap" not in sys.modules


def test_the_words_of_a_command_import_nothing_either(command: Command, one_line: OneLine) -> None:
    for word in ("strategy=trap", "strategy=trap.Strategy", "+import=trap", "+strategy._target_=trap.Strategy"):
        assert command("run", *OURS, word, "run_dir=run") == 2
        assert "unknown " in one_line()
    assert "trap" not in sys.modules


@pytest.mark.parametrize(
    "section", [{"callbacks": {"theirs": {"_target_": "trap.Callback"}}}, {"searchpath": ["pkg://trap"]}], ids=str
)
def test_a_section_for_hydra_imports_nothing(
    section: dict[str, Any], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("trap.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    folder = write_config("theirs", hydra=section)
    command("run", "--config-dir", folder, "--config-name", "config", "run_dir=run")
    assert not Path("imported").exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "settings for Hydra" in line


@pytest.mark.parametrize(
    "changed",
    [
        {"strategy": "naive"},
        {"model": "mlp"},
        {"logger": "wandb"},
        {"logger": ["wandb"]},
        {"epn": 5},
        {"seed": "${nope}"},
    ],
    ids=str,
)
def test_a_config_of_the_wrong_shape_is_one_line(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        load_config(write_config("theirs", **changed))


def test_a_header_that_makes_a_config_a_section_for_hydra_imports_nothing(command: Command) -> None:
    Path("trap.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    Path("theirs").mkdir()
    values = {
        "defaults": ["base", "_self_"],
        "run": {"dir": "run"},
        "sweep": {"dir": "run", "subdir": "0"},
        "callbacks": {"theirs": {"_target_": "trap.Callback"}},
    }
    Path("theirs/config.yaml").write_text("# @package hydra\n" + yaml.safe_dump(values, sort_keys=False))
    for words in (("--config-dir", "theirs", "--config-name", "config"), ("--config-d=theirs", "-cn", "config.yaml")):
        assert command("run", *words) == 2
    Path("theirs/config.yaml").rename("theirs/other.yaml")
    Path("theirs/run.json").write_text("{}")
    assert command("run", "-cd", "theirs", "--config-name", "other") == 2
    assert not Path("imported").exists()


def test_defaults_that_are_no_list_are_one_line(command: Command, one_line: OneLine) -> None:
    folder = write_config("theirs", defaults=5)
    assert command("run", "--config-dir", folder, "--config-name", "config", "run_dir=run") == 2
    assert one_line()
