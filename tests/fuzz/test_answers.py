"""Servers that say anything: answers of W&B to `pull`, and downloads of data sets."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from cl_powerprop.data.fetch import fetch
from cl_powerprop.errors import DataError
from cl_powerprop.tracking import wandb_pull
from cl_powerprop.tracking.wandb_pull import pull

from ..tracking.test_hostile_answers import Answer as Run
from ..tracking.test_hostile_answers import Offered, sent, whole
from .cases import cases
from .guard import Place, case, watched
from .hostile import VALUES, OfBytes, changed, few_changes, of_bytes
from .servers import Answer, serving

pytestmark = pytest.mark.slow

values = st.sampled_from(sorted(VALUES)).map(VALUES.__getitem__)
names = st.sampled_from(
    [
        *("run_folder/run.json", "run_folder/config.yaml", "run_folder/curves.csv", "run_folder/accuracy_matrix.csv"),
        *("../outside/startup", "/etc/passwd", "run_folder/../../../outside/new", "run_folder/../../good/run.json"),
        *("run_folder", "run_folder/", "run_folder/run.json/x", "run_folder\\run.json", "run_folder/model.safetensors"),
    ]
)


@dataclass(frozen=True)
class Wrong:
    """A file as the server offers it."""

    name: Any
    content: bytes
    claimed: Any

    def offered(self) -> Offered:
        return Offered(self.name, self.content, self.claimed)


wrong_files = st.builds(
    Wrong, names | values, st.binary(max_size=20), st.none() | st.sampled_from([-1, 0, 5, 10**15, 10**400]) | values
)
identifiers = (
    st.sampled_from(["bad", "good", "..", "a/b", "../outside/x", ".hidden", "-rf", "a\0b", "con", ""]) | values
)


@cases(
    "answers",
    identifier=identifiers,
    name=st.just("run") | values,
    record=st.just([]) | few_changes,
    damaged=st.lists(st.tuples(st.integers(0, 3), of_bytes), max_size=2),
    more=st.lists(wrong_files, max_size=4),
    kind=st.sampled_from(["run", "run", "run", "files", "error", "value"]),
    value=values,
)
def test_a_run_on_a_server_is_pulled_or_is_one_line(
    place: Place,
    identifier: Any,
    name: Any,
    record: list[Any],
    damaged: list[tuple[int, OfBytes]],
    more: list[Wrong],
    kind: str,
    value: Any,
) -> None:
    with case(place) as folder, pytest.MonkeyPatch.context() as patch:
        files = whole("bad")
        content: Any = changed({"run_id": "bad", "status": "complete", "wandb": {"id": "bad"}}, record, place)
        files[0].content = json.dumps(content).encode()
        for which, damage in damaged:
            files[which].content = damage.apply(files[which].content)
        offered: Any = [*(each.offered() for each in more), *files]
        if kind in ("files", "error"):
            offered = value if kind == "files" else RuntimeError(str(value)[:3000])
        bad: Any = value if kind == "value" else Run(identifier, name, offered)
        runs = [Run("good", offered=whole("good")), bad, Run("good2", offered=whole("good2"))]
        patch.setattr(wandb_pull, "_runs", lambda _: runs)
        patch.setattr(wandb_pull, "download", sent)
        found: list[wandb_pull.Pulled] = []

        def act() -> list[str]:
            found.append(pull("team/project", Path("out"), quiet=True))
            return found[0].problems

        watched(place, act, errors=())
        written = sorted(path.name for path in found[0].written)
        assert {"good", "good2"} <= {*written, *(path.name for path in found[0].present)}
        assert len(found[0].problems) <= 1
        assert sorted(path.name for path in folder.iterdir()) == ["out"]
        assert {path.name for path in (folder / "out").iterdir()} == {*written}
        for path in (folder / "out").rglob("*"):
            assert path.is_dir() or path.name in wandb_pull._FILES


CONTENT = bytes(range(256)) * 40
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT
HEADERS = (
    *(b"Content-Length: -1", b"Content-Length: 99999999999999", b"Content-Length: x", b"Content-Length: 5"),
    *(b"Content-Length: " + b"9" * 5000, b"Content-Range: bytes 7-/0", b"Transfer-Encoding: chunked"),
    *(b"Content-Encoding: gzip", b"Location: file:///proc/self/environ", b"Location: /2", b"Location: "),
    *(b"Location: ftp://127.0.0.1/x", b"X: \x1b[2J", b"X: " + b"x" * 70_000, b"\0", b": ", b"Set-Cookie: a\xff"),
)
REASONS = (
    b"200 OK",
    b"206 Partial Content",
    b"416 No",
    b"302 Found",
    b"404 \x1b[2J\r",
    b"500 " + b"x" * 5000,
    b"999 x",
)
answers = st.one_of(
    st.just(Answer(WHOLE)),
    st.builds(lambda damage, endless: Answer(damage.apply(WHOLE), endless), of_bytes, st.booleans()),
    st.builds(
        lambda reason, headers, body, endless: Answer(
            b"\r\n".join([b"HTTP/1.1 " + reason, *headers, b"", body]), endless
        ),
        st.sampled_from(REASONS),
        st.lists(st.sampled_from(HEADERS), max_size=3),
        st.sampled_from([b"", CONTENT, CONTENT[:1000], b"ffffffffffff\r\n", b"-1\r\n", b"5\r\nabcde\r\n0\r\n\r\n"]),
        st.booleans(),
    ),
)


@cases(
    "downloads",
    said=st.lists(answers, min_size=1, max_size=3),
    part=st.sampled_from(["nothing", "a beginning", "other bytes", "a link", "a hard link", "a folder", "a long file"]),
)
def test_a_download_is_whole_or_is_one_line(place: Place, said: list[Answer], part: str) -> None:
    with case(place) as folder, pytest.MonkeyPatch.context() as patch, serving(said) as server:
        patch.setenv("no_proxy", "127.0.0.1")
        file, begun = folder / "data" / "file", folder / "data" / "file.part"
        file.parent.mkdir()
        match part:
            case "a beginning":
                begun.write_bytes(CONTENT[:500])
            case "other bytes":
                begun.write_bytes(b"x" * 500)
            case "a link":
                begun.symlink_to(place.startup)
            case "a hard link":
                begun.hardlink_to(place.startup)
            case "a folder":
                begun.mkdir()
            case "a long file":
                begun.write_bytes(CONTENT * 2)
        host, port = server.address
        urls = [f"http://{host}:{port}/{number}" for number in range(2)]
        expected = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()

        def act() -> list[str]:
            fetch(urls, file, expected, most=2**20)
            return []

        lines = watched(place, act, errors=(DataError,), address=server.address)
        assert bool(lines) != file.exists()
        assert lines or file.read_bytes() == CONTENT
        assert not begun.is_file() or begun.stat().st_size <= 2**20
    assert server.sent < 2**25
