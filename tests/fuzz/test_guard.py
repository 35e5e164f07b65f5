"""The guard of the other tests finds what no reader may do."""

import os
import pickle
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from . import guard
from .guard import PAYLOAD, SECRET, Place, case, watched

FORBIDDEN: dict[str, Callable[[Place], object]] = {
    "a program": lambda place: subprocess.run(["true"], check=True),
    "a command": lambda place: os.system("true"),
    "a module": lambda place: __import__(PAYLOAD),
    "a pickle": lambda place: pickle.loads(b"cos\ngetcwd\n(tR."),
    "a file outside": lambda place: (place.outside / "new").write_text(""),
    "a file through a link": lambda place: _through_a_link(place).write_text(""),
    "a file outside appended to": lambda place: place.startup.open("a").close(),
    "a file outside removed": lambda place: place.startup.unlink(),
    "a file taken away": lambda place: place.startup.rename("mine"),
    "a link outside": lambda place: (place.outside / "link").symlink_to("x"),
    "a hard link outside": lambda place: (place.outside / "link").hardlink_to(place.startup),
    "a hard link to what lies outside": lambda place: _hard_link(place).write_text("x"),
    "a folder outside": lambda place: (place.outside / "folder").mkdir(),
    "a file cut": lambda place: os.truncate(place.startup, 0),
    "a mode": lambda place: place.startup.chmod(0o777),
    "the secret": lambda place: place.secret.read_text(),
    "the secret through a link": lambda place: _through_a_link(place).read_text(),
    "much memory": lambda place: bytes(2**29 + 2**28).count(1),
    "long work": lambda place: sum(1 for _ in iter(lambda: time.process_time() < place.until, False)),
    "an unclear line": lambda place: ["two\nlines"],
    "a line that says nothing": lambda place: [""],
    "a secret in a line": lambda place: [SECRET],
    "a secret in the output": lambda place: print(SECRET),
    "a secret in a file": lambda place: Path("file").write_text(SECRET),
}


def _through_a_link(place: Place) -> Path:
    Path("link").symlink_to(place.secret)
    return Path("link")


def _hard_link(place: Place) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "_watch", None)
        Path("hard").hardlink_to(place.startup)
    return Path("hard")


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_is_forbidden_is_found(place: Place, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 0.2)
    monkeypatch.setattr(Place, "until", time.process_time() + 0.3, raising=False)

    def act() -> list[str]:
        done = FORBIDDEN[name](place)
        return done if isinstance(done, list) else []

    with case(place), pytest.raises(AssertionError):
        watched(place, act, errors=())
    assert place.outside_is_whole()


def test_a_case_that_waits_for_ever_is_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HANGS", 1)
    with case(place):
        os.mkfifo("pipe")
        with pytest.raises(guard.TooSlow):
            watched(place, lambda: [Path("pipe").read_text()], errors=(Exception,))


def test_what_is_allowed_is_not_found(place: Place) -> None:
    def act() -> list[str]:
        Path("folder").mkdir()
        Path("folder/file").write_text("content")
        Path("folder/file").rename("file")
        Path("file").unlink()
        return ["a line"]

    with case(place):
        assert watched(place, act, errors=()) == ["a line"]


def test_an_error_that_was_not_foreseen_is_handed_on(place: Place) -> None:
    with case(place), pytest.raises(ZeroDivisionError):
        watched(place, lambda: [str(1 / 0)], errors=(ValueError,))
