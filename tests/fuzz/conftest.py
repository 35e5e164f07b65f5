"""What is damaged: files of real runs, made once."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .guard import Place, place_of_cases

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # what a case does is read from /proc

TINY = ("benchmark.n_tasks=2", "train.epochs=2", "model.hidden=[8]", "train.batch_size=200", "progress=false")
KINDS = {
    "packnet": ("strategy=packnet", "strategy.retrain_epochs=1"),
    "sparse": ("strategy=naive", "sparsity=rigl", "sparsity.every=3", "model.heads=shared"),
    "ewc": ("strategy=ewc", "strategy.penalty=1", "model.heads=shared"),
}


@dataclass(frozen=True)
class Seeds:
    """Whole files.

    Attributes:
        root: the folder of the others.
        complete: folders of complete runs, by kind.
        begun: likewise, of runs that were cut off, with a checkpoint within the second task.
    """

    root: Path
    complete: dict[str, Path]
    begun: dict[str, Path]


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place_of_cases(tmp_path_factory.mktemp("place")) as place:
        yield place


@pytest.fixture(scope="package")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Seeds:
    from cl_powerprop.experiment import run

    from ..run.conftest import compose_config
    from ..run.test_resume import cut_off

    root = tmp_path_factory.mktemp("seeds")
    complete, begun = {}, {}
    for kind, options in KINDS.items():
        config = compose_config(*TINY, *options, "checkpoint.max_share=1")
        complete[kind] = run(config, root / kind, quiet=True).path
        begun[kind] = root / f"{kind}-begun"
        with cut_off(task=1, epoch=1):
            run(config, begun[kind], quiet=True)
        assert (begun[kind] / "checkpoint.previous.safetensors").is_file()
    return Seeds(root, complete, begun)


@pytest.fixture
def victims(seeds: Seeds) -> list[Path]:
    """Folders of complete and of begun runs."""
    return [*seeds.complete.values(), *seeds.begun.values()]


def copied(source: Path, target: Path) -> Path:
    """Copy a folder."""
    return Path(shutil.copytree(source, target))
