"""Runs the code of documents in this process, each in a folder of its own, and writes what failed as JSON.

Called as `python -m tests.docs.execute OUT FOLDER DOCUMENT[#CHAPTER]...`; what documents register stays in the process.
"""

import contextlib
import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cl_powerprop
from cl_powerprop import registry
from cl_powerprop.cli import main as command

from .documents import Block, blocks, commands

# What makes a run small, where a document's command does not say otherwise.
SMALL = {
    "data": "digits",
    "benchmark.n_tasks": "2",
    "train.epochs": "2",
    "progress": "false",
    "hydra/launcher": "basic",
}
PACKAGE = Path(cl_powerprop.__file__).parent


def main() -> None:
    out, folder, *documents = sys.argv[1:]
    _replace_downloads()
    failures = {}
    for name in documents:
        place = Path(folder) / name.replace("/", "_").replace(" ", "_")
        place.mkdir(parents=True)
        document, _, chapter = name.partition("#")
        with _apart(place) if len(documents) > 1 else contextlib.chdir(place):
            failures[name] = _execute(document, blocks(document, chapter or None))
    Path(out).write_text(json.dumps(failures), encoding="utf-8")


def _execute(document: str, found: list[Block]) -> str | None:
    """Write all files, then run the rest of a document in order; return what went wrong first."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in sorted(found, key=lambda block: block.file is None):
        try:
            if block.file is not None:
                _write(block)
            elif block.language == "python":
                code = "\n" * (block.line - 1) + block.code  # so that a traceback names the document's own line
                exec(compile(code, document, "exec"), names)
            elif block.language == "sh":
                for line in commands(block.code):
                    _call(line)
        except BaseException:
            return f"{document}, line {block.line}:\n{traceback.format_exc()}"
    return None


def _write(block: Block) -> None:
    """Write a block's file, or add the block to a file that is there. `conf/` lies in the package, as in a wheel."""
    assert block.file is not None
    inside = block.file.startswith(("cl_powerprop/", "conf/"))
    path = PACKAGE / block.file.removeprefix("cl_powerprop/") if inside else Path(block.file)
    assert not inside or "site-packages" not in str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") + "\n\n" if path.exists() else ""
    path.write_text(before + block.code, encoding="utf-8")


def _call(line: str) -> None:
    words = shlex.split(line)[1:]
    if words[0] == "suite" and "--quick" not in words:  # which takes hours
        words += ["--quick", "--methods", "naive"]
    if "run" in words:
        given = {word.partition("=")[0] for word in words}
        if "benchmark=single" in words:  # it is one task
            given.add("benchmark.n_tasks")
        if "--retry-failed" in words:  # the launcher that knows what has failed
            given.add("hydra/launcher")
        words += [f"{key}={value}" for key, value in SMALL.items() if key not in given and "experiment" not in given]
    try:
        command(words)
    except SystemExit as stopped:
        if stopped.code:
            raise RuntimeError(f"{line}\nended with exit code {stopped.code}") from stopped


@contextlib.contextmanager
def _apart(folder: Path) -> Iterator[None]:
    """Work in a folder, and forget afterwards what was registered and imported there."""
    before, path = Path.cwd(), list(sys.path)
    os.chdir(folder)
    try:
        with contextlib.suppress(_ForgetError), registry._all_or_nothing():
            yield
            raise _ForgetError
    finally:
        os.chdir(before)
        sys.path[:] = path
        registry._asked_for.clear()


class _ForgetError(Exception):
    pass


def _replace_downloads() -> None:
    """Put small random images in the place of the benchmarks that Avalanche would download."""
    import torch
    from avalanche.benchmarks import classic
    from avalanche.benchmarks.scenarios.dataset_scenario import benchmark_from_datasets
    from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
    from avalanche.benchmarks.scenarios.task_aware import with_task_labels
    from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_tensor_classification_dataset

    def small(n_experiences: int, return_task_id: bool) -> Any:
        assert return_task_id
        streams = {
            part: [
                _make_taskaware_tensor_classification_dataset(
                    torch.rand(100, 1, 28, 28), torch.arange(100) % 10, task_labels=[task] * 100
                )
                for task in range(n_experiences)
            ]
            for part in ("train", "test")
        }
        return with_classes_timeline(with_task_labels(benchmark_from_datasets(**streams)))

    classic.SplitMNIST = small


if __name__ == "__main__":
    main()
