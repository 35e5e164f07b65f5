"""Options of parts from outside that are named like secrets: numbers never come from what stands in their place."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import cl_powerprop
from cl_powerprop import Strategy, StrategyConfig, load_runs, register_strategy
from cl_powerprop.errors import UserError
from cl_powerprop.privacy import redact_options
from cl_powerprop.registry import _parts
from cl_powerprop.repeat import repeat
from cl_powerprop.resume import resume

from ..run.test_resume import cut_off

WORDS = ("strategy=keyed", "data=digits", "benchmark.n_tasks=2", "train.epochs=1", "model.hidden=[8]", "progress=false")
KEPT = "checkpoint.max_share=1"
GIVEN = "strategy.api_key=mine"


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(kw_only=True)
    class KeyedConfig(StrategyConfig):
        api_key: str = ""
        key_init: str = "uniform"
        bypass: str = "none"

    monkeypatch.setitem(_parts, "strategy", dict(_parts["strategy"]))

    class Keyed(Strategy):
        """One that asks somebody for something."""

        resumable = True

    register_strategy("keyed", KeyedConfig)(Keyed)


def options_in(folder: str) -> dict[str, Any]:
    options: dict[str, Any] = yaml.safe_load(Path(folder, "config.yaml").read_text())["strategy"]
    return options


def test_only_the_last_word_makes_an_option_a_secret() -> None:
    cl_powerprop.run([*WORDS, "strategy.key_init=normal", "strategy.bypass=mean"], "run")
    assert options_in("run") == {"name": "keyed", "api_key": "", "key_init": "normal", "bypass": "mean"}
    assert repeat(Path("run"), ["run_dir=again"]) == Path("again")


def test_a_secret_is_given_again_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with cut_off(task=1, epoch=0):
        cl_powerprop.run([*WORDS, KEPT, GIVEN], "run")
    assert "mine" not in Path("run/config.yaml").read_text()
    assert "mine" not in Path("run/checkpoint.safetensors").read_bytes().decode("latin1")
    (line,) = resume(["run"])
    assert "strategy.api_key is <hidden " in line
    assert "strategy.api_key=VALUE" in line
    with pytest.raises(UserError, match=r"other settings: strategy.api_key was <hidden \w+> and is <hidden \w+>"):
        cl_powerprop.run([*WORDS, KEPT, "strategy.api_key=another"], "run")
    assert cl_powerprop.run([*WORDS, KEPT, GIVEN], "run").record["status"] == "complete"
    (message,) = json.loads(Path("run/run.json").read_text())["messages"]
    assert message.startswith("strategy.api_key looks like a secret: it is left out of the run folder")


def test_a_run_with_a_secret_is_repeated_with_it_and_not_without() -> None:
    cl_powerprop.run([*WORDS, GIVEN], "run")
    with pytest.raises(UserError, match=r"strategy\.api_key is <hidden"):
        repeat(Path("run"), ["run_dir=again"])
    assert not Path("again").exists()
    repeat(Path("run"), [GIVEN, "run_dir=again"])
    cl_powerprop.run([*WORDS, "strategy.api_key=another"], "other")
    assert options_in("again") == options_in("run") != options_in("other")
    runs = load_runs(".").runs
    assert runs["strategy.api_key"].nunique() == 2, "runs with other secrets are no repetitions"


def test_what_stands_for_a_secret_stays_as_it_is() -> None:
    once = redact_options({"api_key": "mine", "url": "https://me:pw@host", "path": "x"})
    assert once["api_key"].startswith("<hidden ")
    assert once["url"].startswith("https://<hidden ")
    assert redact_options(once) == once
