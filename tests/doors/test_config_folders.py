"""Folders of configs given by `--config-dir`: whatever they say, Hydra is told nothing that it could execute."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_powerprop import hydra_guard
from cl_powerprop.composition import compose
from cl_powerprop.config import repeatable_yaml

from ..run.conftest import Command
from .conftest import OneLine

CALLBACK = {"theirs": {"_target_": "psutil.Popen", "args": ["touch", "executed"]}}
POPEN = "_target_: psutil.Popen\nargs: [touch, executed]\n"
OURS = ("data=digits", "strategy=untrained", "benchmark.n_tasks=1", "progress=false", "save_model=false", "run_dir=run")


def config(header: str = "", **changed: Any) -> str:
    values = yaml.safe_load(repeatable_yaml(compose(OURS)))
    return header + yaml.safe_dump({**values, **changed}, sort_keys=False)


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


HOSTILE: dict[str, dict[str, str]] = {
    "callback": {"theirs/config.yaml": config(hydra={"callbacks": CALLBACK})},
    "escaped": {"theirs/config.yaml": config() + '"\\u0068ydra": {callbacks: {x: {_target_: psutil.Popen}}}\n'},
    "searchpath": {"theirs/config.yaml": config(hydra={"searchpath": ["pkg://trap"]})},
    "header": {"theirs/config.yaml": "# @package hydra.callbacks.x\n" + POPEN},
    "header-in-group": {
        "theirs/config.yaml": config(defaults=["base", {"grp": "x"}, "_self_"]),
        "theirs/grp/x.yaml": "# @package hydra.callbacks.x\n" + POPEN,
    },
    "header-behind-a-separator": {
        "theirs/config.yaml": config(defaults=["base", {"grp": "x"}, "_self_"]),
        "theirs/grp/x.yaml": "# @a b\x0c# @package hydra.callbacks.x\n" + POPEN,
    },
    "package": {
        "theirs/config.yaml": config(defaults=["base", {"grp@hydra.callbacks.x": "x"}, "_self_"]),
        "theirs/grp/x.yaml": POPEN,
    },
    "looked-up-package": {
        "theirs/config.yaml": config(defaults=["base", {"grp@${place}.callbacks.x": "x"}, "_self_"], place="hydra"),
        "theirs/grp/x.yaml": POPEN,
    },
    "override": {
        "theirs/config.yaml": config(defaults=["base", {"override /hydra/launcher": "x"}, "_self_"]),
        "theirs/hydra/launcher/x.yaml": POPEN,
    },
    "experiment": {
        "theirs/config.yaml": config(defaults=["base", {"grp": "x"}, "_self_"]),
        "theirs/grp/x.yaml": "# @package _global_\nhydra:\n  callbacks:\n    x:\n      "
        + POPEN.replace("\n", "\n      "),
    },
    "elsewhere": {
        "theirs/config.yaml": config(defaults=["base", {"grp": "../../outside/x"}, "_self_"]),
        "outside/x.yaml": "# @package hydra.callbacks.x\n" + POPEN,
    },
    "environment": {"theirs/config.yaml": config(references_dir="${oc.env:SECRET}")},
    "variable": {"theirs/config.yaml": config(references_dir="${variable:SECRET,x}")},
    "decoded": {"theirs/config.yaml": config(references_dir="${oc.decode:'${oc.env:SECRET}'}")},
    "named-by-another": {"theirs/config.yaml": config(references_dir="${${reader}:SECRET}", reader="oc.env")},
    **{
        f"hydra-resolver-{index}": {"theirs/config.yaml": config(references_dir=text)}
        for index, text in enumerate(
            (
                *("${hydra:job.env_set.SECRET}", "${hydra:launcher}", "${hydra:}", "${ hydra : callbacks}"),
                *("${hydra:job.${other}}", "${hydra:job.num}${oc.env:SECRET}", "${hydra:job.num,${oc.env:SECRET}}"),
                "${oc.${hydra:job.name}:SECRET}",
            )
        )
    },
    **{
        f"launcher-{index}": {
            "theirs/config.yaml": config(defaults=["base", {key: value}, "_self_"]),
            "theirs/grp/x.yaml": POPEN,
        }
        for index, (key, value) in enumerate(
            [
                *(("override /hydra/launcher", "theirs"), ("override /hydra/launcher", ["basic"])),
                *(("override /hydra/launcher@hydra.callbacks.x", "basic"), ("override /hydra/sweeper", "basic")),
                *(("override /hydra/callbacks", "x"), ("override /hydra/launcher", "${x}")),
            ]
        )
    },
    "launcher-of-theirs": {
        "theirs/config.yaml": config(defaults=["base", {"override /hydra/launcher": "submitit_slurm"}, "_self_"]),
        "theirs/hydra/launcher/submitit_slurm.yaml": POPEN,
    },
    "bomb": {
        "theirs/config.yaml": "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    },
    "in-itself": {"theirs/config.yaml": "a: &a [*a]\n"},
    "deep": {"theirs/config.yaml": "a: " + "[" * 5000 + "]" * 5000},
    "large": {"theirs/config.yaml": "a: " + "x" * 2**21},
    "upper-case": {"theirs/HYDRA/callbacks.YML": POPEN, "theirs/config.yaml": config()},
    "not-text": {"theirs/config.yaml": "\x00"},
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_folder_of_configs_executes_and_reads_nothing(
    name: str, command: Command, one_line: OneLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "swordfish")
    write(HOSTILE[name])
    assert command("run", "--config-dir", "theirs", "--config-name", "config", "run_dir=run") == 2
    assert "swordfish" not in one_line()
    assert not Path("executed").exists()
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "name", ["callback", "header-in-group", "package", "experiment", "override", "launcher-of-theirs"]
)
def test_what_a_first_look_misses_is_refused_when_it_is_composed(
    name: str, command: Command, one_line: OneLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hydra_guard, "_check", lambda *_: None)
    write(HOSTILE[name])
    for flags in ((), ("-m",)):
        assert command("run", *flags, "--config-dir", "theirs", "--config-name", "config", "run_dir=run") == 2
        assert "settings for Hydra" in one_line()
        assert not Path("executed").exists()


def test_links_are_followed_as_hydra_does(command: Command, one_line: OneLine) -> None:
    write({"theirs/config.yaml": config(defaults=["base", {"grp": "x"}, "_self_"])})
    write({"outside/x.yaml": "# @package hydra.callbacks.x\n" + POPEN})
    Path("theirs/grp").symlink_to(Path("outside").absolute())
    assert command("run", "--config-dir", "theirs", "--config-name", "config", "run_dir=run") == 2
    assert "settings for Hydra" in one_line()
    Path("theirs/grp").unlink()
    Path("theirs/grp").symlink_to(Path("theirs").absolute())
    assert command("run", "--config-dir", "theirs", "--config-name", "config", "run_dir=run") == 2
    assert "is a link" in one_line()
    Path("theirs/grp").unlink()
    os.mkfifo("theirs/x.yaml")
    assert command("run", "--config-dir", "theirs", "--config-name", "config", "run_dir=run") == 2
    assert "it is not a file" in one_line()


def test_a_name_that_leads_out_of_the_folder_is_refused(command: Command, one_line: OneLine) -> None:
    write({"theirs/x.yaml": "seed: 1\n", "outside/x.yaml": "# @package hydra.callbacks.x\n" + POPEN})
    for name in ("../outside/x", "../outside/x.yaml"):
        assert command("run", "--config-dir", "theirs", "--config-name", name) == 2
        assert "--config-name" in one_line()


def test_a_run_folder_is_for_repeat(command: Command, one_line: OneLine) -> None:
    write({"a; touch executed/config.yaml": config(), "a; touch executed/run.json": "{}"})
    assert command("run", "--config-dir", "a; touch executed", "--config-name", "config") == 2
    assert "cl-powerprop repeat 'a; touch executed'" in one_line()


@pytest.mark.slow
def test_a_folder_of_options_works(command: Command) -> None:
    write({"mine/config.yaml": config(seed=3, references_dir="x/${seed}", run_dir="runs/${now:%Y}/${strategy.name}")})
    assert command("run", "--config-dir", "mine", "--config-name", "config", "run_dir=run") == 0
    assert "seed: 3" in Path("run/config.yaml").read_text()
    assert "references_dir: x/3" in Path("run/config.yaml").read_text()
    write({"mine/other.yaml": "defaults: [run, _self_]\nseed: 5\n"})
    assert command("run", "--config-dir", "mine", "--config-name", "other", *OURS[:-1], "run_dir=other") == 0
    assert "seed: 5" in Path("other/config.yaml").read_text()


@pytest.mark.slow
def test_harmless_settings_of_hydra_work(command: Command) -> None:
    """What Hydra says of a job, and the known launchers by name."""
    chosen = "${hydra:runtime.choices.strategy}-${hydra:job.num}-${hydra:job.name}"
    for launcher in ("basic", "joblib"):
        defaults = f"defaults: [run, {{override /hydra/launcher: {launcher}}}, _self_]\n"
        write({f"mine/{launcher}.yaml": f"{defaults}references_dir: {chosen}\n"})
        words = ["--config-dir", "mine", "--config-name", launcher, *OURS[:-1], f"run_dir={launcher}"]
        assert command("run", *words) == 0
        assert "references_dir: untrained-" in Path(launcher, "config.yaml").read_text()
    write({"mine/experiment/x.yaml": "# @package _global_\ndefaults: [{override /hydra/launcher: joblib}]\nseed: 4\n"})
    words = ["--config-dir", "mine", "experiment=x", *OURS[:-1], "seed=4,5", "hydra.sweep.dir=sweep"]
    assert command("run", "-m", *words) == 0
    assert len(list(Path("sweep").glob("*/run.json"))) == 2
