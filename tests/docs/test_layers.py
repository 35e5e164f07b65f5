"""Imports point one way: down the table of layers in docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .documents import ROOT, read

PACKAGE = ROOT / "cl_powerprop"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def layers() -> dict[str, int]:
    """Return the height of each file or folder that the table names; the lowest layer is 0."""
    section = read("docs/architecture.md").partition("## Layers")[2].partition("\n## ")[0]
    rows = [line.split("|")[2] for line in section.splitlines() if line.startswith("| ")][2:]
    return {name: height for height, row in enumerate(reversed(rows)) for name in re.findall(r"`([^`]+)`", row)}


HEIGHTS = layers()


def height(file: str) -> int:
    """Return the height of a file by its own name, else by that of its folder."""
    return HEIGHTS.get(file, HEIGHTS.get(file.partition("/")[0] + "/", -1))


def imported(path: Path) -> Iterator[str]:
    """Yield the files of the package that a module imports when it is imported itself."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cl_powerprop":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "cl_powerprop"]
        else:
            continue
        for name in names:
            yield next(_files(name.split(".")[1:]))


def _files(words: list[str]) -> Iterator[str]:
    """Yield the file of a module, or of the module that holds what is named."""
    for count in range(len(words), -1, -1):
        name = "/".join(words[:count])
        for file in (f"{name}.py", f"{name}/__init__.py".lstrip("/")):
            if (PACKAGE / file).is_file():
                yield file


def test_every_file_has_a_layer() -> None:
    assert [file for file in FILES if height(file) < 0] == [], "missing in docs/architecture.md"


def test_imports_point_down() -> None:
    edges = [(file, other) for file in FILES for other in imported(PACKAGE / file)]
    assert len(edges) > 100
    assert [(file, other) for file, other in edges if height(other) > height(file)] == []


def test_the_table_names_what_exists() -> None:
    assert len(set(HEIGHTS.values())) > 10
    assert all((PACKAGE / name).exists() for name in HEIGHTS)
