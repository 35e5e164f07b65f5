"""Downloads from local test servers."""

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from cl_powerprop.cli import main
from cl_powerprop.data import mnist
from cl_powerprop.data.fetch import fetch, md5
from cl_powerprop.data.idx import IdxFile
from cl_powerprop.data.mnist import MNIST
from cl_powerprop.errors import DataError

from .idx import write_idx as idx

CONTENT = bytes(range(256)) * 4000  # about 1 MB: several chunks
CHECKSUM = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Mirror:
    """A local server: its ``files`` by path, and the faults that it simulates."""

    files: dict[str, bytes] = field(default_factory=lambda: {"/file": CONTENT})
    ranges: bool = True
    drop_after: int | None = None  # closes the connection after so many bytes of the body
    garbage: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def start(self) -> ThreadingHTTPServer:
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                mirror.requests.append((self.path, wanted))
                if mirror.garbage:
                    self.wfile.write(b"what?\r\n\r\n")
                    return
                body = mirror.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and mirror.ranges else 0
                if start and start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                stop = None if mirror.drop_after is None else start + mirror.drop_after
                self.wfile.write(body[start:stop])

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}/"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server


Serve = Callable[..., Mirror]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(**options: object) -> Mirror:
        mirror = Mirror(**options)  # type: ignore[arg-type]
        servers.append(mirror.start())
        return mirror

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def dead_url(serve: Serve) -> str:
    """A URL with a closed port."""
    mirror = Mirror()
    server = mirror.start()
    server.shutdown()
    server.server_close()
    return mirror.url + "file"


def test_a_whole_download(serve: Serve, tmp_path: Path) -> None:
    mirror, path = serve(), tmp_path / "new" / "folder" / "file"
    seen: list[tuple[str, int, int]] = []
    fetch([mirror.url + "file"], path, CHECKSUM, lambda *values: seen.append(values))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["file"], "no .part stays"
    assert md5(path) == CHECKSUM
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert {total for _, _, total in seen} == {len(CONTENT)}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_is_resumed_where_the_server_can(serve: Serve, tmp_path: Path, ranges: bool) -> None:
    mirror, path = serve(ranges=ranges), tmp_path / "file"
    (tmp_path / "file.part").write_bytes(CONTENT[:300_000])
    seen: list[tuple[str, int, int]] = []
    fetch([mirror.url + "file"], path, CHECKSUM, lambda *values: seen.append(values))
    assert path.read_bytes() == CONTENT
    assert mirror.requests == [("/file", "bytes=300000-")]
    assert (seen[0][1] > 300_000) == ranges
    assert seen[-1] == ("file", len(CONTENT), len(CONTENT))
    assert not (tmp_path / "file.part").exists()


def test_a_part_that_is_whole_needs_no_more_bytes(serve: Serve, tmp_path: Path) -> None:
    mirror, path = serve(), tmp_path / "file"
    (tmp_path / "file.part").write_bytes(CONTENT)
    fetch([mirror.url + "file"], path, CHECKSUM)
    assert path.read_bytes() == CONTENT


def test_a_wrong_checksum_goes_on_to_the_next_mirror_from_the_start(serve: Serve, tmp_path: Path) -> None:
    wrong, right, path = serve(files={"/file": b"other" * 1000}), serve(), tmp_path / "file"
    fetch([wrong.url + "file", right.url + "file"], path, CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert len(wrong.requests) == 1
    assert right.requests == [("/file", None)]


def test_a_wrong_checksum_everywhere_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    mirror, path = serve(files={"/file": b"other"}), tmp_path / "file"
    with pytest.raises(DataError, match="checksum") as caught:
        fetch([mirror.url + "file"], path, CHECKSUM)
    assert "file" in str(caught.value)
    assert mirror.url in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_file_is_found_out(serve: Serve, tmp_path: Path) -> None:
    mirror, path = serve(), tmp_path / "file"
    (tmp_path / "file.part").write_bytes(b"?" * 1000)
    fetch([mirror.url + "file", mirror.url + "file"], path, CHECKSUM)
    assert path.read_bytes() == CONTENT


def test_dead_and_absent_mirrors_are_passed_over(serve: Serve, tmp_path: Path, dead_url: str) -> None:
    absent, right, path = serve(files={}), serve(), tmp_path / "file"
    fetch([dead_url, absent.url + "file", right.url + "file"], path, CHECKSUM)
    assert path.read_bytes() == CONTENT


def test_a_mirror_that_does_not_speak_http_is_passed_over(serve: Serve, tmp_path: Path) -> None:
    garbage, right, path = serve(garbage=True), serve(), tmp_path / "file"
    fetch([garbage.url + "file", right.url + "file"], path, CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert len(garbage.requests) == 1


def test_all_mirrors_dead_is_one_line_that_names_them(serve: Serve, tmp_path: Path, dead_url: str) -> None:
    absent = serve(files={})
    with pytest.raises(DataError) as caught:
        fetch([dead_url, absent.url + "file"], tmp_path / "file", CHECKSUM)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("could not download file", dead_url, absent.url):
        assert part in message
    assert not (tmp_path / "file").exists()


def test_a_dropped_connection_keeps_its_part_for_the_next_call(serve: Serve, tmp_path: Path) -> None:
    dropping, right, path = serve(drop_after=400_000), serve(), tmp_path / "file"
    with pytest.raises(DataError):
        fetch([dropping.url + "file"], path, CHECKSUM)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:400_000]
    fetch([right.url + "file"], path, CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert right.requests == [("/file", "bytes=400000-")]


@pytest.fixture
def offered(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A mirror with four small files instead of MNIST's."""
    mirror = serve(files={})
    for key, file in list(mnist.FILES.items()):
        array = np.arange(6 * (1 if "labels" in key else 784), dtype=np.int64) % 10
        content = idx(array.astype(np.uint8).reshape((6,) if "labels" in key else (6, 28, 28)))
        gzipped = gzip.compress(content, mtime=0)
        digests = [hashlib.md5(data, usedforsecurity=False).hexdigest() for data in (gzipped, content)]
        monkeypatch.setitem(mnist.FILES, key, IdxFile(file.name, *digests))
        mirror.files[f"/{file.name}.gz"] = gzipped
    monkeypatch.setattr(MNIST, "mirrors", (mirror.url,))
    monkeypatch.setattr(MNIST, "shapes", ((6, 28, 28), (6, 28, 28)))
    return mirror


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_data_download_fetches_and_then_has_nothing_to_do(
    offered: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("data", "download", "mnist", "--root", str(tmp_path)) == 0
    assert "mnist: present" in capsys.readouterr().out
    assert len(offered.requests) == 4
    assert MNIST().read(tmp_path).train_images.shape == (6, 28, 28)
    assert not list(tmp_path.rglob("*.part"))
    assert command("data", "download", "mnist", "--root", str(tmp_path)) == 0
    assert len(offered.requests) == 4, "valid files are not fetched again"


def test_data_download_repairs_one_altered_file_only(offered: Mirror, tmp_path: Path) -> None:
    MNIST().download(tmp_path)
    folder, name = tmp_path / "MNIST" / "raw", mnist.FILES["test_labels"].name
    (folder / name).write_bytes(b"altered")
    (folder / f"{name}.gz").write_bytes(b"altered too")
    offered.requests.clear()
    MNIST().download(tmp_path)
    assert [path for path, _ in offered.requests] == [f"/{name}.gz"]
    assert MNIST().read(tmp_path).test_labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_data_download_unpacks_a_valid_gzipped_file_that_is_there(offered: Mirror, tmp_path: Path) -> None:
    MNIST().download(tmp_path)
    for file in mnist.FILES.values():
        (tmp_path / "MNIST" / "raw" / file.name).unlink(missing_ok=True)
    offered.requests.clear()
    MNIST().download(tmp_path)
    assert offered.requests == []
    assert MNIST().read(tmp_path).test_images.shape == (6, 28, 28)


def test_data_download_without_network_is_one_line(
    dead_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MNIST, "mirrors", (dead_url.removesuffix("file"),))
    assert command("data", "download", "mnist", "--root", str(tmp_path)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(errors) == 1
    assert errors[0].startswith("cl-powerprop: error: could not download train-images-idx3-ubyte.gz")


def test_data_download_into_a_root_that_is_a_file_is_one_line(
    offered: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "root").write_text("not a folder")
    assert command("data", "download", "mnist", "--root", str(tmp_path / "root")) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(errors) == 1
    assert errors[0].startswith("cl-powerprop: error:")
    assert str(tmp_path / "root") in errors[0]


def test_an_unknown_data_set_names_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("status", "download", "verify"):
        assert command("data", action, "mnits", "--root", str(tmp_path)) == 2
        expected = (
            "unknown data 'mnits'; choose from: arrays, cifar10, cifar100, digits, fashion_mnist, folder, kmnist, "
        )
        expected += "mnist, mnist5k, omniglot; "
        expected += "one from outside needs cl-powerprop --import MODULE"
        assert capsys.readouterr().err == f"cl-powerprop: error: {expected}\n"
