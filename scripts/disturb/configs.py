"""The configs that are disturbed. Together they have each kind of state that a run has to save."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

_COMMON = (
    *("data=digits", "benchmark.n_tasks=3", "train.epochs=4", "train.batch_size=64", "model.hidden=[24]"),
    *("device=cpu", "progress=false", "references_dir=references"),
    *("checkpoint.every_epochs=1", "checkpoint.max_share=1"),  # every interval is kept, however short the run
)
_OFTEN = ("checkpoint.every_seconds=0.02",)  # in the midst of epochs too
_SPARSE = ("strategy=naive", "sparsity.every=13", "sparsity.target=0.8", "optimizer.lr=0.1", "optimizer.momentum=0.9")
_CONVNET = (
    *("model=convnet", "model.width=4", "data=mnist5k", "benchmark=split", "benchmark.n_tasks=2"),
    *("train.epochs=2", "train.batch_size=200"),
)


def _words(*own: str) -> tuple[str, ...]:
    """Return the words of a config: the common ones, as far as it has no others for the same option."""
    given = {word.partition("=")[0] for word in own}
    convnet = {"model.hidden"} if any(word.startswith("model.width=") for word in own) else set()
    chosen = {"data"} if "benchmark=omniglot" in own else set()
    return (*own, *(word for word in _COMMON if word.partition("=")[0] not in given | convnet | chosen))


CONFIGS = {
    "naive": _words("strategy=naive", "optimizer.momentum=0.9", "train.shift=1", "train.rotate=10", "train.warmup=0.1"),
    "ewc": _words("strategy=ewc", "benchmark=split", "benchmark.n_tasks=5", "optimizer=adam", *_OFTEN),
    "packnet": _words(
        *("strategy=packnet", "benchmark=rotated", "optimizer=adamw", "optimizer.lr=0.01", "model.bias=per_task"),
        *("evaluation.every_steps=15",),
    ),
    "epn": _words("strategy=epn", "strategy.search=grid", "strategy.retrain_epochs=2", "optimizer.momentum=0.9"),
    "epn-saliency": _words(
        *("strategy=epn", "strategy.criterion=saliency", "model.alpha=3", "model.bias=per_task", "train.clip_norm=1"),
        *("evaluation.every_epochs=1", "train.shift=1", *_OFTEN),
    ),
    "epn-convnet": _words(
        *("strategy=epn", *_CONVNET, "model.norm=batch", "optimizer=adam", "optimizer.lr=0.01"),
    ),
    "joint": _words("strategy=joint", "optimizer=adam", "optimizer.lr=0.01", "train.rotate=10", *_OFTEN),
    "references": _words("strategy=naive", "references=[joint,independent,untrained]", "train.epochs=3"),
    "independent": _words(
        *("strategy=independent", *_CONVNET, "model.norm=group", "optimizer.momentum=0.9", "optimizer.lr=0.05"),
    ),
    "rigl": _words(*_SPARSE, "sparsity=rigl", "benchmark=single", "benchmark.n_tasks=1", "train.epochs=8", *_OFTEN),
    "top_kast": _words(*_SPARSE, "sparsity=top_kast", "logger=[tensorboard]", "train.shift=1"),
    "gradual": _words(*_SPARSE, "sparsity=gradual", "train.precision=bf16", "save_model=false"),
    "wandb": _words(
        *("strategy=packnet", "logger=[wandb]", "logger.wandb.mode=offline", "logger.wandb.dir=wandb"),
        *("logger.wandb.figures=false", "optimizer=adam", "optimizer.lr=0.01"),
    ),
    "untrained": _words("strategy=untrained", "evaluation.schedule=diagonal_and_last"),
    "multirun": _words("-m", "hydra/launcher=basic", "seed=0,1", "strategy=naive", "benchmark.n_tasks=2"),
    "pictures": _words(
        *("benchmark=single", "benchmark.n_tasks=1", "data=folder", "data.root={data}", "data.folder=pictures"),
        *("data.size=16", "data.workers=1", "data.in_memory=false", "train.crop=0.5", "train.flip=true"),
        *("train.batch_size=4", "optimizer.lr=0.02", *_OFTEN),
    ),
}
"""The words after `cl-powerprop run` by the config's name; places are relative to the folder of the case, and
`{data}` is the folder of :func:`write_pictures`."""

if (Path(os.environ.get("CL_POWERPROP_DATA", "")) / "omniglot-py").is_dir():
    CONFIGS["omniglot"] = _words(
        *("strategy=epn", "benchmark=omniglot", "benchmark.n_tasks=2", "model.width=4", "train.epochs=2"),
    )

LARGE = _words("strategy=packnet", "model.hidden=[1500,1300]", "train.epochs=2")
"""A run that does not fit on a disk of 16 MB."""

SWEEP = _words("-m", "hydra/launcher=basic", "seed=range(6)", "strategy=packnet,epn", "benchmark.n_tasks=2")
"""A multirun of 12 jobs."""


def write_pictures(data: Path) -> None:
    """Write pictures of three classes to `data/pictures`: noise of three colours."""
    draws = np.random.default_rng(0)
    for label, colour in enumerate(((200, 80, 80), (80, 200, 80), (80, 80, 200))):
        for split, count in (("train", 16), ("val", 4)):
            folder = data / "pictures" / split / f"class_{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(colour + draws.normal(0, 60, (20, 20, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
