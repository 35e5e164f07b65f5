"""Servers that send without end, too slowly, or something else than they say; and what lies where a part is written."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cl_powerprop.data.fetch import download, fetch
from cl_powerprop.errors import DataError

CONTENT = bytes(range(256)) * 400
CHECKSUM = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
MOST = 2**20

Answer = Callable[[BaseHTTPRequestHandler], None]
Serve = Callable[[Answer], str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server that answers every request in the same way; the result is an address on it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has had enough
                    answer(self)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        servers[-1].daemon_threads = True
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/file"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answered(handler: BaseHTTPRequestHandler, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def whole(handler: BaseHTTPRequestHandler) -> None:
    answered(handler, Content_Length=str(len(CONTENT)))
    handler.wfile.write(CONTENT)


def refused(url: str, path: Path) -> str:
    start = time.perf_counter()
    with pytest.raises(DataError) as raised:
        fetch([url], path, CHECKSUM, most=MOST)
    assert time.perf_counter() - start < 20
    message = str(raised.value)
    assert message.isprintable()
    assert not path.exists()
    assert sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file()) <= MOST
    return message


def test_a_stream_without_end_is_given_up(serve: Serve, tmp_path: Path) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        answered(handler)
        while True:
            handler.wfile.write(bytes(2**16))

    assert "sends more than 1,048,576 bytes" in refused(serve(endless), tmp_path / "file")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (10**15, "it has 1,000,000,000,000,000 bytes"),
        (10**6, "ended after 102400 of"),
        (10, "checksum"),
        (-5, "checksum"),
    ],
)
def test_a_false_length_is_found(serve: Serve, tmp_path: Path, said: int, told: str) -> None:
    def lying(handler: BaseHTTPRequestHandler) -> None:
        answered(handler, Content_Length=str(said))
        handler.wfile.write(CONTENT if said > 0 else b"?")

    assert told in refused(serve(lying), tmp_path / "file")


@pytest.mark.parametrize("said", ["many", "1e3", "٣", "9" * 5000])
def test_a_length_that_is_no_number_is_passed_over(serve: Serve, tmp_path: Path, said: str) -> None:
    def odd(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: " + said.encode() + b"\r\n\r\n" + CONTENT)

    if said.startswith("9"):
        refused(serve(odd), tmp_path / "file")
    else:
        fetch([serve(odd)], tmp_path / "file", CHECKSUM, most=MOST)
        assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_trickle_is_given_up(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_powerprop.data.fetch._PACE", (0.5, 10_000))

    def trickling(handler: BaseHTTPRequestHandler) -> None:
        answered(handler, Content_Length=str(len(CONTENT)))
        for byte in CONTENT:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.05)

    assert "bytes in" in refused(serve(trickling), tmp_path / "file")


def test_what_takes_too_long_is_given_up(serve: Serve, tmp_path: Path) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        answered(handler, Content_Length=str(len(CONTENT)))
        for start in range(0, len(CONTENT), 1000):
            handler.wfile.write(CONTENT[start : start + 1000])
            time.sleep(0.05)

    with pytest.raises(TimeoutError, match="more than 0 seconds"):
        download(serve(slow), tmp_path / "file", "file", seconds=0.2)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "", "x"])
def test_other_schemes_are_not_opened(address: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not one of http or https"):
        download(address, tmp_path / "file", "file")
    assert not (tmp_path / "file").exists()


def test_silence_is_given_up(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cl_powerprop.data.fetch._SILENCE", 0.3)
    refused(serve(lambda _: time.sleep(5)), tmp_path / "file")


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x", "gopher://x/", "//["]
)
def test_other_schemes_are_not_followed(serve: Serve, tmp_path: Path, target: str) -> None:
    refused(serve(lambda handler: answered(handler, 302, Location=target)), tmp_path / "file")


def test_a_server_that_points_to_itself_is_given_up(serve: Serve, tmp_path: Path) -> None:
    refused(serve(lambda handler: answered(handler, 302, Location="/file")), tmp_path / "file")


def test_another_server_is_followed_and_https_never_to_http(serve: Serve, tmp_path: Path) -> None:
    from cl_powerprop.data.fetch import _Redirects

    right = serve(whole)
    fetch([serve(lambda handler: answered(handler, 302, Location=right))], tmp_path / "file", CHECKSUM)
    assert (tmp_path / "file").read_bytes() == CONTENT
    with pytest.raises(OSError, match="not followed"):
        _Redirects("https").redirect_request(None, None, 302, "", None, right)


def test_a_part_larger_than_the_whole_is_given_up(serve: Serve, tmp_path: Path) -> None:
    def with_ranges(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("Range"):
            handler.send_error(416)
        else:
            whole(handler)

    (tmp_path / "file.part").write_bytes(CONTENT + CONTENT)
    fetch([serve(with_ranges)], tmp_path / "file", CHECKSUM)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def soft_link(part: Path, other: Path) -> None:
    part.symlink_to(other)


def hard_link(part: Path, other: Path) -> None:
    os.link(other, part)


def pipe(part: Path, _: Path) -> None:
    os.mkfifo(part)


@pytest.mark.parametrize("make", [soft_link, hard_link, pipe])
def test_nothing_is_written_through_what_has_the_name_of_the_part(
    serve: Serve, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    other = tmp_path / "startup"
    other.write_text("keep")
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder / "file.part", other)
    fetch([serve(whole)], folder / "file", CHECKSUM)
    assert other.read_text() == "keep"
    assert (folder / "file").read_bytes() == CONTENT
    assert not (folder / "file").is_symlink()


def test_a_link_with_the_file_s_own_name_is_replaced(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "startup").write_text("keep")
    (tmp_path / "file").symlink_to(tmp_path / "startup")
    fetch([serve(whole)], tmp_path / "file", CHECKSUM)
    assert (tmp_path / "startup").read_text() == "keep"
    assert (tmp_path / "file").read_bytes() == CONTENT
