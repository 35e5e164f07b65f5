"""Each promise in SECURITY.md names tests, and they exist."""

import re

import pytest

from .documents import ROOT, read

ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in read("SECURITY.md").splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| files and answers |", "| what |"))
]


def test_there_are_promises() -> None:
    assert len(ROWS) > 10
    assert all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_a_promise_names_tests(row: list[str]) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", row[-1])
    assert named
    assert re.sub(r"`[^`]*`|[, ]", "", row[-1]) == "", "the last column names tests and nothing else"
    for file in named:
        assert re.search(r"^def test_", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), file


def test_every_fuzz_test_is_named() -> None:
    text = read("SECURITY.md")
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "fuzz").glob("test_*.py")}
    assert {file for file in files if f"`{file}`" not in text} == {"tests/fuzz/test_guard.py"}
