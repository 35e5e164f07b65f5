"""Configs with the same parts are composed by Hydra once; each is what Hydra alone would make of it."""

from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module

from cl_powerprop import composition
from cl_powerprop.composition import compose
from cl_powerprop.config import parse
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.overrides import prepare

PAIRS = [
    (["strategy=epn", "strategy.gamma=0.9", "seed=1"], ["strategy=epn", "strategy.gamma=0.95", "seed=2"]),
    (["strategy=naive", "optimizer.lr=0.1"], ["strategy=packnet", "optimizer.lr=0.1"]),
    (["strategy=packnet", "strategy.shares=0.1"], ["strategy=packnet", "strategy.shares=[0.1,0.2]"]),
    (["epn.gamma=0.9", "train.clip_norm=null"], ["epn.gamma=0.95", "train.clip_norm=2"]),
    (["data=digits", "data.root=1_1", "device=cpu"], ["data=digits", "data.root=null", "device=cuda"]),
    (["logger=tensorboard", "train.epochs=3"], ["logger=tensorboard", "train.epochs=4"]),
    (["model.hidden=[20]", "++seed=3"], ["model.hidden=[20,10]", "++seed=4"]),
    (["~evaluation.schedule", "train.epochs=2"], ["train.epochs=3", "~evaluation.schedule"]),
    (["train.epochs=2", "train.epochs=3"], ["train.epochs=3", "train.epochs=2"]),
    (["experiment=quickstart/epn", "train.epochs=1"], ["experiment=quickstart/epn", "strategy.gamma=0.5"]),
    (["benchmark=split", "benchmark.classes=[[0,1],[2,3]]"], ["benchmark=split", "train.batch_size=7"]),
]


@pytest.fixture(autouse=True)
def forgotten() -> None:
    composition._chosen.cache_clear()


def made(words: list[str]) -> Any:
    config = compose(words)
    config.run_dir = ""  # which has the time
    return config


def by_hydra(words: list[str]) -> Any:
    with initialize_config_module("cl_powerprop.conf", version_base="1.3"):
        config = parse(hydra_compose("run", prepare(words)))
    config.run_dir = ""
    return config


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_each_config_is_what_hydra_makes_of_it(first: list[str], second: list[str]) -> None:
    alone = by_hydra(second)
    before = made(first)
    assert made(second) == alone
    assert made(first) == before != alone


def test_hydra_composes_once_for_the_same_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    usual = composition.hydra_compose
    monkeypatch.setattr(composition, "hydra_compose", lambda *given: calls.append(given) or usual(*given))
    for seed in range(3):
        assert compose([f"seed={seed}", "strategy=naive"]).seed == seed
    assert compose(["strategy=naive", "model.hidden=[7]", "~evaluation.schedule"]).model.name == "mlp"
    compose(["seed=1", "strategy=ewc"])
    assert len(calls) == 2


@pytest.mark.parametrize("word", ["train.epochs=x", "train=3", "strategy.gama=1", "seed=[1]"])
def test_a_mistake_is_refused_the_second_time_too(word: str) -> None:
    said = []
    for _ in range(2):
        with pytest.raises(ConfigurationError) as refused:
            compose([word])
        said.append(str(refused.value))
    key = word.partition("=")[0]
    if key == "train.epochs":
        compose([f"{key}=3"])
        with pytest.raises(ConfigurationError) as refused:
            compose([word])
        said.append(str(refused.value))
    assert len({*said}) == 1
