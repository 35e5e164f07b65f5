"""A package that is installed with an entry point needs no `--import`; one that is broken breaks nothing of ours."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import copytree, rmtree
from textwrap import dedent

import pytest

from ..run.conftest import shipped
from .conftest import ALL, OURS, OUTSIDE, call_elsewhere

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package from outside is installed, by pip."""
    source, target = tmp_path_factory.mktemp("source") / "outside", tmp_path_factory.mktemp("site")
    copytree(OUTSIDE, source)
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target


def choices(name: str) -> str:
    """Our strategies and one more, as messages list them."""
    return ", ".join(sorted([*shipped("strategy"), name]))


def install(name: str, text: str, folder: Path, entry_points: str | None = None) -> Path:
    """Put a module where installed packages are, with the entry points that pip would write."""
    (folder / f"{name}.py").write_text(dedent(text), encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cl_powerprop.plugins]\n{entry_points or f'{name} = {name}'}\n")
    return folder


@pytest.mark.slow
def test_it_is_listed_run_swept_resumed_and_compared_without_an_import(installed: Path, tmp_path: Path) -> None:
    words = [word for word in ALL if not word.startswith("strategy=")]
    sweep = ("strategy=anchored,naive", "anchored.strength=0.3", "hydra/launcher=basic", "run_dir=sweep")
    called = call_elsewhere(
        tmp_path,
        ["list"],
        ["run", "-m", *words, *sweep],
        ["resume", "sweep"],
        ["compare", "sweep", "--metric", "worst_task", "--out", "out"],
        ["run", *words, "strategy=anchored", "strategy.strenght=1", "run_dir=wrong"],
        heavy=True,
        PYTHONPATH=str(installed),
    )
    assert called.codes == [0, 0, 0, 0, 2], called.err
    assert "anchored     Weights are held where the task before left them. (my_parts.strategy)" in called.out
    assert "sweep/0: complete" in called.out
    assert "shifted on bars" in called.out
    (line,) = called.err.splitlines()
    assert "unknown option 'strategy.strenght'; did you mean 'strength'?" in line
    record = json.loads((tmp_path / "sweep/0/run.json").read_text())
    assert (record["strategy"], record["data"], record["model"]) == ("anchored", "bars", "wide")
    assert record["metrics"]["worst_task"] is not None
    assert record["lines"] == {"opened": 1}
    assert (tmp_path / "sweep/0/lines.txt").read_text().startswith("1 0 ")
    assert "worst_task" in (tmp_path / "out/summary.csv").read_text()


LIGHT = """
from dataclasses import dataclass
from cl_powerprop import Strategy, StrategyConfig, register_strategy

@dataclass(kw_only=True)
class Options(StrategyConfig):
    strength: float = 0.5

@register_strategy("light", Options)
class Light(Strategy):
    "Costs nothing to list."
"""

BROKEN = LIGHT.replace("light", "broken") + "\nraise RuntimeError('two\\nlines')\n"


@pytest.mark.parametrize("light", [True, False], ids=["with a light plugin", "alone"])
def test_what_answers_at_once_imports_neither_torch_nor_avalanche(light: bool, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    if light:
        install("light", LIGHT, site)
    words = ("list",), ("--help",), ("run", "--help"), ("data", "status", "digits"), ("run", *OURS, "--cfg", "job")
    wrong = [("strategy.gamma=x",), ("strategy=mine",), ("strategy=naive", "epn.gama=1"), ("benchmark=split", "n=1")]
    runs = [("run", *OURS, *each, "run_dir=run") for each in wrong]
    called = call_elsewhere(tmp_path, *words, *runs, ("resume", "nowhere"), PYTHONPATH=str(site))
    assert called.codes == [0] * len(words) + [2] * (len(runs) + 1), called.err
    assert len(called.err.splitlines()) == len(runs) + 1
    assert ("light        Costs nothing to list. (light)" in called.out) == light
    assert (f"choose from: {choices('light')}" in called.err) == light


def test_importing_the_package_and_using_its_light_names_imports_neither(tmp_path: Path) -> None:
    script = (
        "import sys, cl_powerprop\n"
        "assert not {'torch', 'avalanche', 'hydra', 'numpy', 'pandas'} & set(sys.modules), 'it costs something'\n"
        "cl_powerprop.compose(['strategy=packnet'])\n"
        "cl_powerprop.register_strategy, cl_powerprop.Metric, cl_powerprop.Dataset, cl_powerprop.Strategy\n"
        "print([name for name in ('torch', 'avalanche') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BROKEN, "RuntimeError: two lines"),
        ("import sys; sys.exit(5)", "SystemExit: 5"),
        ("import not_installed", "ModuleNotFoundError: No module named 'not_installed'"),
        (LIGHT.replace('"light"', '"epn"'), "strategy 'epn' is registered already, by cl_powerprop.strategies.epn"),
        (LIGHT.replace("strength: float", "strength"), "strategy 'light': Options.strength has no type"),
    ],
)
def test_a_plugin_that_is_broken_is_left_out_and_all_else_works(text: str, said: str, tmp_path: Path) -> None:
    """What the broken one had registered is gone, and what it was the first to ask for of ours is there."""
    site = tmp_path / "site"
    site.mkdir()
    install("a_broken_one", text, site)
    install("light2", LIGHT.replace("light", "light2"), site)
    shown = ("list",), ("run", *OURS, "strategy=light2", "epn.gamma=0.9", "--cfg", "job"), ("data", "status", "digits")
    called = call_elsewhere(tmp_path, *shown, ("run", "strategy=mine"), PYTHONPATH=str(site))
    assert called.codes == [0, 0, 0, 2], called.err
    warning, error = called.err.splitlines()
    assert warning.startswith(f"cl-powerprop: the plugin a_broken_one (a_broken_one) is left out: {said}")
    assert f"choose from: {choices('light2')}" in error
    assert "permuted" in called.out


def test_an_entry_point_that_names_nothing_is_left_out(tmp_path: Path) -> None:
    install("light", LIGHT, tmp_path, "gone = light:Gone\nnowhere = not_there\nlight = light")
    called = call_elsewhere(tmp_path, ["list"], PYTHONPATH=str(tmp_path))
    assert called.codes == [0]
    gone, nowhere = called.err.splitlines()
    assert "the plugin gone (light:Gone) is left out: AttributeError" in gone
    assert "the plugin nowhere (not_there) is left out: ModuleNotFoundError" in nowhere
    assert "Costs nothing to list. (light)" in called.out


def test_a_plugin_that_is_also_imported_by_name(tmp_path: Path) -> None:
    install("light", LIGHT, tmp_path)
    called = call_elsewhere(
        tmp_path, ["--import", "light", "list"], ["--import", "light", "list"], PYTHONPATH=str(tmp_path)
    )
    assert called.codes == [0, 0]
    assert called.err == ""
    assert called.out.count("Costs nothing to list. (light)") == 2
    rmtree(tmp_path / "light-1.0.dist-info")
    called = call_elsewhere(tmp_path, ["list"], PYTHONPATH=str(tmp_path))
    assert "Costs nothing" not in called.out, "it is the entry point that finds it"
