"""`pull` from a server that answers anything: only run folders' own files are fetched, and one bad run costs itself."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cl_powerprop.tracking import wandb_pull
from cl_powerprop.tracking.wandb_pull import pull

NEEDED = ("run.json", "config.yaml", "accuracy_matrix.csv", "curves.csv")


@dataclass
class Offered:
    """A file as W&B's client gives it; its address has the content."""

    name: Any
    content: bytes = b"x"
    claimed: Any = None

    @property
    def size(self) -> Any:
        return len(self.content) if self.claimed is None else self.claimed

    @property
    def direct_url(self) -> Any:
        return f"http://offered/{self.content.hex()}"


def sent(url: str, path: Path, name: str, *, most: int, seconds: float) -> None:
    """Write what a server sends, as a download does."""
    content = bytes.fromhex(url.rpartition("/")[2])
    path.write_bytes(content[:most])
    if len(content) > most:
        raise OSError(f"it has {len(content)} bytes, of at most {most}")


@dataclass
class Answer:
    """A run as W&B's client gives it."""

    id: Any
    name: Any = "run"
    offered: Any = field(default_factory=list)

    def files(self, names: list[str], per_page: int) -> Iterator[Any]:
        if isinstance(self.offered, Exception):
            raise self.offered
        return iter(self.offered)


def whole(run_id: str, **changed: bytes) -> list[Offered]:
    contents = dict.fromkeys(NEEDED, b"x") | {"run.json": json.dumps({"run_id": run_id, "status": "complete"}).encode()}
    return [Offered(f"run_folder/{name}", changed.get(name, content)) for name, content in contents.items()]


def pulled(monkeypatch: pytest.MonkeyPatch, out: Path, *runs: Any) -> wandb_pull.Pulled:
    monkeypatch.setattr(wandb_pull, "_runs", lambda _: list(runs))
    monkeypatch.setattr(wandb_pull, "download", sent)
    return pull("team/project", out, quiet=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with nothing else in it."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_only_files_that_were_asked_for_are_fetched(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = ["../../outside", "/tmp/outside", "run_folder/../x", "run_folder/model.safetensors", "run_folder/a.py", ""]
    offered = [*(Offered(name) for name in others), Offered(None), Offered(3), Offered(["run_folder/run.json"])]
    result = pulled(monkeypatch, place / "out", Answer("good", offered=offered + whole("good")))
    assert result.written == [place / "out" / "good"]
    assert sorted(path.name for path in (place / "out" / "good").iterdir()) == sorted(NEEDED)
    assert sorted(path.name for path in place.rglob("*")) == sorted(["out", "good", *NEEDED])


BAD: dict[str, Any] = {
    **{"no id": Answer(None), "a number": Answer(3), "a list": Answer(["a"]), "no run": None, "a text": "run"},
    **{
        "up": Answer(".."),
        "a path": Answer("a/b"),
        "NUL": Answer("a\0b"),
        "a line": Answer("a\n"),
        "empty": Answer(""),
    },
    **{"long": Answer("a" * 5000), "hidden": Answer(".a"), "an option": Answer("-rf"), "escape": Answer("\x1b[2J")},
    "a failure": Answer("bad", offered=RuntimeError("no\nfiles\x1b[2J")),
    "no files": Answer("bad"),
    "files of another kind": Answer("bad", offered=[None, 3, "run.json"]),
    "a huge file": Answer("bad", offered=[Offered("run_folder/run.json", claimed=10**15)]),
    "a negative size": Answer("bad", offered=[Offered("run_folder/run.json", claimed=-1)]),
    "no size": Answer("bad", offered=[Offered("run_folder/run.json", claimed="many")]),
    "another size": Answer("bad", offered=[Offered("run_folder/run.json", claimed=5)]),
    "endless": Answer("bad", offered=[Offered("run_folder/x")] * 10**6),
    "a name of another kind": Answer("bad", name=["\x1b[2J", 3]),
    "an escape in its name": Answer("bad", name="\x1b[2J\r\n" * 1000),
    "another run's": Answer("bad", offered=whole("good")),
    "a list for a run": Answer("bad", offered=whole("bad", **{"run.json": b"[]"})),
    "a status of another kind": Answer("bad", offered=whole("bad", **{"run.json": b'{"run_id": "bad", "status": []}'})),
    "W&B of another kind": Answer("bad", offered=whole("bad", **{"run.json": b'{"wandb": ["bad"], "status": "x"}'})),
    "deep": Answer("bad", offered=whole("bad", **{"run.json": b"[" * 10**6})),
    "not whole": Answer("bad", offered=whole("bad")[:-1]),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_run_costs_itself_alone(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [Answer(f"good{number}", offered=whole(f"good{number}")) for number in range(2)]
    result = pulled(monkeypatch, place / "out", good[0], BAD[name], good[1])
    assert sorted(result.written) == [place / "out" / "good0", place / "out" / "good1"]
    assert len(result.problems) == 1
    assert result.problems[0].isprintable()
    assert len(result.problems[0]) < 700
    assert sorted(path.name for path in place.rglob("*")) == sorted(["out", "good0", "good1", *NEEDED, *NEEDED])


def test_links_are_left_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, other = place / "out", place / "other"
    pulled(monkeypatch, place, Answer("other", offered=whole("other")))
    out.mkdir()
    (out / "other").symlink_to(other)
    (out / "nowhere").symlink_to(place / "nothing")
    (out / "mine").mkdir()
    os.mkfifo(out / "mine" / "run.json")
    runs = [Answer(name, offered=whole(name)) for name in ("other", "nowhere", "mine")]
    result = pulled(monkeypatch, out, *runs)
    assert len(result.problems) == 3
    assert not result.written
    assert not (place / "nothing").exists()


def test_an_interrupted_pull_leaves_nothing_that_looks_whole(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(Offered):
        @property
        def direct_url(self) -> Any:
            raise KeyboardInterrupt

    offered = [*whole("run")[:-1], Interrupting("run_folder/curves.csv")]
    with pytest.raises(KeyboardInterrupt):
        pulled(monkeypatch, place / "out", Answer("run", offered=offered))
    assert list((place / "out").iterdir()) == []


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner, max_size=3)
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(answers=st.lists(st.builds(Answer, ANY, ANY, st.lists(st.builds(Offered, ANY, st.binary(), ANY))), max_size=3))
def test_any_answer_is_a_problem_and_no_more(
    answers: list[Answer], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = pulled(monkeypatch, place / "out", *answers)
    assert not result.written
    assert len(result.problems) == len(answers)
    assert list((place / "out").iterdir()) == []
    assert [path.name for path in place.iterdir()] == ["out"]
