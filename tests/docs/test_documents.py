"""What our documents say can be run does run, names what exists, and fits the config."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .documents import DOCUMENTS, ROOT, blocks, commands, jobs, read

pytestmark = pytest.mark.slow

# Whose code is executed, all of it: Python, files, and lines that call the command.
EXECUTED = (
    *("README.md#Your own strategy", "README.md#In your own Avalanche script", "docs/guide.md", "docs/compare.md"),
    *("README.md#Sparse training in a bare loop", "docs/export.md", "docs/sparse_training.md"),
    "docs/reliability.md",
    "docs/dashboards.md#In your own training loop",
)
OUTSIDE, INSIDE = "docs/extending.md#From outside", "docs/extending.md#Inside the package"


def execute(folder: Path, documents: tuple[str, ...]) -> dict[str, str | None]:
    """Run documents in one process over a copy of the package, into which they may write files."""
    copy = folder / "copy" / "cl_powerprop"
    shutil.copytree(ROOT / "cl_powerprop", copy, ignore=shutil.ignore_patterns("__pycache__", "conf"))
    shutil.copytree(ROOT / "conf", copy / "conf", ignore=shutil.ignore_patterns("__pycache__"))
    out = folder / "failures.json"
    words = [sys.executable, "-P", "-W", "ignore", "-m", "tests.docs.execute", out, folder / "work", *documents]
    search = os.pathsep.join(map(str, (copy.parent, ROOT)))
    environment = {name: value for name, value in os.environ.items() if name != "CL_POWERPROP_DATA"}
    ended = subprocess.run(
        words, cwd=folder, env=environment | {"PYTHONPATH": search}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    failures: dict[str, str | None] = json.loads(out.read_text(encoding="utf-8"))
    assert set(failures) == set(documents)
    return {name: failure and f"{failure}\n{ended.stderr[-3000:]}" for name, failure in failures.items()}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    return execute(tmp_path_factory.mktemp("documents"), (*EXECUTED, OUTSIDE))


@pytest.mark.slow
@pytest.mark.parametrize("document", [*EXECUTED, OUTSIDE])
def test_the_code_of_a_document_runs(document: str, failures: dict[str, str | None]) -> None:
    assert blocks(*document.split("#")), "there is no such chapter"
    assert failures[document] is None, failures[document]


@pytest.mark.slow
def test_parts_inside_the_package_run_as_described(tmp_path: Path) -> None:
    assert execute(tmp_path, (INSIDE,)) == {INSIDE: None}


def test_every_python_block_is_executed() -> None:
    executed = {document.partition("#")[0] for document in (*EXECUTED, OUTSIDE, INSIDE)}
    for document in DOCUMENTS:
        if any(block.language == "python" for block in blocks(document)):
            assert document in executed
    chapters = {document.partition("#")[2] for document in (*EXECUTED, OUTSIDE, INSIDE)} - {""}
    for document in ("README.md", "docs/extending.md"):
        known = [block for chapter in chapters for block in blocks(document, chapter)]
        assert {block.line for block in blocks(document) if block.language == "python"} <= {b.line for b in known}


def _run_commands() -> list[tuple[str, str]]:
    """Every call of `cl-powerprop run` in the documents; those with parts or configs of one's own are executed."""
    found = []
    for document in set(DOCUMENTS) - {"docs/extending.md"}:
        shell = "".join(block.code for block in blocks(document) if block.language == "sh")
        inline = re.findall(r"`(cl-powerprop run [^`]+)`", read(document))
        runs = [line for line in (*commands(shell), *inline) if line.startswith("cl-powerprop run ")]
        found += [(document, line) for line in runs if "--config-dir" not in line]
    return sorted(set(found))


@pytest.mark.parametrize(("document", "line"), _run_commands())
def test_every_run_in_a_document_fits_the_config(document: str, line: str) -> None:
    from cl_powerprop.composition import compose

    words = [
        word
        for word in shlex.split(line)[2:]
        if "=" in word and not word.startswith(("-", "hydra/", "hydra.launcher."))
    ]
    for job in jobs([word for word in words if "..." not in word]):
        compose(job).check()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", read(document)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), f"{document} links to {link}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(_anchor, headings), f"{document} links to {link}"


def _anchor(heading: str) -> str:
    """Return the address that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    written = {block.file for block in blocks(document)}
    for name in re.findall(r"`((?:cl_powerprop|conf|docs|tests|benchmarks|scripts)/[\w./-]*)`", read(document)):
        pattern = name.replace("GROUP", "*").replace("NAME", "*")
        assert name in written or list(ROOT.glob(pattern)), f"{document} names {name}"
