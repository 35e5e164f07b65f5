"""The code in our documents: fenced blocks, and the file that a block is to be written to.

A block is a file if the line before it ends in the file's name, as in "Write `my_strategy.py`:".
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/*/README.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"  # which speaks of what was
]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w./-]+\.(?:py|yaml|toml))`:\s*\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: of the document, from 1, where the code begins.
        file: where the code is to be written; None for code that is to be run.
    """

    language: str
    code: str
    line: int
    file: str | None


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, chapter: str | None = None) -> list[Block]:
    """Return the blocks of a document, or of its chapter `## CHAPTER` only."""
    text = read(document)
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        headings = re.findall(r"^## (.*)$", before, re.MULTILINE)
        if chapter is not None and headings[-1:] != [chapter]:
            continue
        named = _FILE.search(before)
        line = text[: match.start(2)].count("\n") + 1
        found.append(Block(match[1], match[2], line, named[1] if named else None))
    return found


def commands(code: str) -> list[str]:
    """Return the lines of shell code that call `cl-powerprop`: whole, without comments, with variables filled in."""
    variables: dict[str, str] = {}
    found = []
    for line in re.sub(r"\\\n\s*", "", code).splitlines():
        words = re.sub(r"\s+# .*$", "", line).strip()
        if assigned := re.fullmatch(r"(\w+)=(\S+)", words):
            variables[assigned[1]] = assigned[2]
        for name, value in variables.items():
            words = re.sub(rf"\${name}\b", value, words)
        words = re.sub(r"^CL_POWERPROP_DATA=\S+\s+", "", words)
        if words.startswith("cl-powerprop "):
            found.append(words)
    return found


def jobs(overrides: list[str]) -> list[list[str]]:
    """Return jobs of a multirun in which each value, divided by commas outside brackets, comes at least once."""
    choices = []
    for override in overrides:
        key, _, value = override.partition("=")
        values = re.split(r",(?![^\[(]*[\])])", value)
        choices.append([f"{key}={each}" for each in values])
    most = max(map(len, choices), default=1)
    return [[values[job % len(values)] for values in choices] for job in range(most)]
