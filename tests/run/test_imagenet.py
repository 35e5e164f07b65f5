"""The recipes for ImageNet, end to end on a generated folder of small pictures."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from cl_powerprop.experiment import run
from cl_powerprop.networks.classifier import Classifier

from ..data.picture_folder import write_pictures
from .conftest import compose_config

pytestmark = pytest.mark.slow

RECIPES = {"dense": "none", "gradual": "gradual", "rigl": "rigl", "top_kast": "top_kast"}
MINIATURE = (
    "data.size=32",
    "data.resize=36",
    "data.workers=1",
    "benchmark.validation=4",
    "train.epochs=1",
    "train.batch_size=10",
    "optimizer.lr=0.01",
    "device=cpu",
    "progress=false",
)
OFTEN = {"gradual": ("sparsity.every=1",), "rigl": ("sparsity.every=1",), "top_kast": ("sparsity.every=1",)}


def recipe(name: str, *words: str) -> Any:
    return compose_config(f"experiment=imagenet/resnet50_{name}", *words)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_its_document_says(name: str) -> None:
    config = recipe(name)
    config.check()
    train = config.train
    assert (train.epochs, train.batch_size, config.optimizer.lr) == (100, 8 * 256, pytest.approx(8 * 0.1))
    assert train.warmup * train.epochs == pytest.approx(5)
    assert (train.label_smoothing, train.crop, train.flip, train.schedule) == (0.1, 0.08, True, "cosine")
    assert (train.precision, train.channels_last, train.clip_norm) == ("bf16", True, None)
    assert (config.model.name, config.model.heads, config.benchmark.name) == ("resnet50", "shared", "single")
    assert (config.data.size, config.data.resize, config.data.in_memory) == (224, 256, False)
    assert config.sparsity.name == RECIPES[name]
    for target in (0.8, 0.95) if name != "dense" else ():
        assert recipe(name, f"sparsity.target={target}").sparsity.target == target


@pytest.mark.parametrize(
    "name", ["dense", "rigl", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("gradual", "top_kast"))]
)
def test_a_recipe_runs_in_miniature(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "data", classes=2, train=12, tested=3)
    shown: list[torch.Tensor] = []
    real = Classifier.forward

    def spy(self: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if images.any():  # FLOPs are counted on an empty image
            shown.append(images)
        return real(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(Classifier, "forward", spy)
    config = recipe(name, *MINIATURE, *OFTEN.get(name, ()), f"data.root={tmp_path / 'data'}")
    result = run(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["data"], record["model"]) == ("complete", "folder", "resnet50")
    assert shown
    assert all(tuple(images.shape[1:]) == (3, 32, 32) for images in shown)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in shown)
    convolutions = [module for module in result.model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 53
    used = sum(int(module.weight.count_nonzero()) for module in (*convolutions, result.model.output))
    weights = sum(module.weight.numel() for module in (*convolutions, result.model.output))
    assert used / weights == pytest.approx(1.0 if name == "dense" else 0.1, abs=1e-3)
    curves = pd.read_csv(tmp_path / "run" / "curves.csv")
    assert curves.query("split == 'train' and metric == 'loss'").value.notna().all()
