"""What each process of `torchrun` does for the tests: all commands of a file, one after the other.

    torchrun --nproc-per-node=2 several_commands.py FOLDER

``FOLDER/commands.json`` has the words of each command by name. Its exit code and what it printed are written to
``FOLDER/NAME-RANK.json``.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from cl_powerprop import torchrun
from cl_powerprop.cli import main


def ended(seconds: float) -> NoReturn:
    """The first process has ended, as it would without the next command: torchrun ends the others meanwhile."""
    sys.exit(1)


def call(words: list[str], into: Path) -> tuple[int, str, str]:
    """Return exit code, what was printed, and what was printed to stderr."""
    type(torchrun.voice).__init__(torchrun.voice)
    streams, files = (sys.stdout, sys.stderr), [into.with_suffix(f".{name}") for name in ("out", "err")]
    kept = [os.dup(number) for number in (1, 2)]
    for number, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    code: str | int | None = 0
    try:
        main(words)
    except SystemExit as error:
        code = error.code
    for stream in (sys.stdout, sys.stderr, *streams):
        stream.flush()
    sys.stdout, sys.stderr = streams
    for number, file_descriptor in zip((1, 2), kept, strict=True):
        os.dup2(file_descriptor, number)
    return (int(code or 0), *(file.read_text() for file in files))  # type: ignore[return-value]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    time.sleep = ended  # type: ignore[assignment]
    for name, command in json.loads((folder / "commands.json").read_text()).items():
        into = folder / f"{name}-{os.environ['RANK']}.json"
        into.write_text(json.dumps(call(command, into)))
