"""A server that says anything: each request gets the next of some answers, byte by byte as they are."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SENDS = 2**26  # bytes after which even an endless answer ends
_PIECE = bytes(2**16)


@dataclass(frozen=True)
class Answer:
    """What a server sends before it hangs up.

    Attributes:
        content: all of it, or its beginning.
        endless: whether zeros follow, until the client hangs up.
    """

    content: bytes
    endless: bool = False


@dataclass
class Server:
    """A server in this process.

    Attributes:
        address: of it.
        sent: bytes of zeros that it has sent.
    """

    address: tuple[str, int]
    sent: int = 0


@contextlib.contextmanager
def serving(answers: Sequence[Answer]) -> Iterator[Server]:
    """Yield a server that gives these answers, and the last one again and again."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = Server(listening.getsockname())
        thread = threading.Thread(target=_serve, args=(listening, list(answers), server), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _serve(listening: socket.socket, answers: list[Answer], server: Server) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            request = b""
            while b"\r\n\r\n" not in request and (part := connection.recv(2**16)):
                request += part
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            connection.sendall(answer.content)
            while answer.endless and server.sent < _SENDS:
                connection.sendall(_PIECE)
                server.sent += len(_PIECE)
