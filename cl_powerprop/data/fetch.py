"""Download a file and check it: an interrupted download is resumed, and only a checked file gets its final name."""

import hashlib
import http.client
import math
import os
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from cl_powerprop.data.dataset import Progress
from cl_powerprop.errors import DataError, FileError
from cl_powerprop.files import LARGEST, open_file, sync_folder
from cl_powerprop.shown import as_line

_CHUNK = 1 << 18
_SILENCE = 30  # seconds without an answer, after which a server is given up
_SHOWN = 200  # characters of what a server says
_PACE = 60, 60_000  # seconds in which so many bytes must come
_SCHEMES = ("http", "https")
_PART = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def md5(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal.

    Raises:
        FileError: if it is no file, or larger than any file of a data set.
        OSError: if it cannot be read.
    """
    with open_file(path, follow=True) as descriptor, open(descriptor, "rb", closefd=False) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def has_md5(path: Path, expected: str) -> bool:
    """Return whether there is a file with this MD5."""
    try:
        return md5(path) == expected
    except (OSError, FileError):
        return False


def fetch(
    urls: Sequence[str], path: Path, expected_md5: str, progress: Progress | None = None, most: int = LARGEST
) -> None:
    """Download ``path`` from the first of ``urls`` that sends a file with the expected checksum.

    An interrupted download is kept as ``<path>.part`` and continued by the next call.

    Args:
        urls: to try, one after the other.
        path: the file.
        expected_md5: of its content, in hexadecimal.
        progress: is told how far it is.
        most: bytes that it may have.

    Raises:
        DataError: if no URL sends such a file, or the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path.parent} cannot be made: {error.strerror}") from error
    part = path.with_name(path.name + ".part")
    problems = []
    waiting = list(urls)
    while waiting:
        url, begun = waiting.pop(0), os.path.lexists(part)
        try:
            download(url, part, path.name, progress, most)
            found = md5(part)
        except (http.client.HTTPException, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            problems.append(f"{url}: {as_line(str(reason), _SHOWN)}")
            continue
        if found == expected_md5:
            os.replace(part, path)
            sync_folder(path.parent)
            return
        part.unlink()
        if begun:  # it may be the fault of what was there before
            waiting.insert(0, url)
            continue
        problems.append(f"{url}: checksum {found} is not {expected_md5}")
    raise DataError(f"could not download {path.name} ({'; '.join(problems)})")


def download(
    url: str,
    part: Path,
    name: str,
    progress: Progress | None = None,
    most: int = LARGEST,
    seconds: float = math.inf,
) -> None:
    """Append to the part of a file what a server sends.

    Args:
        url: of the file.
        part: what there is of the file; it is made if there is nothing.
        name: of the file, for ``progress``.
        progress: is told how far it is.
        most: bytes that the file may have.
        seconds: that the content may take to come.

    Raises:
        OSError: if the server cannot be reached, fails, is too slow, sends too much or less than it said.
        http.client.HTTPException, ValueError: for an address, or an answer, that is none of HTTP.
    """
    if urlsplit(url).scheme not in _SCHEMES:
        raise OSError("its address is not one of http or https")
    with _open_part(part) as file:
        start = file.seek(0, os.SEEK_END)
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            response = _opener(url).open(request, timeout=_SILENCE)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to send; the checksum is compared next
                return
            raise
        with response:
            resumed = response.status == 206
            done = start if resumed else 0
            file.truncate(done)
            file.seek(done)
            said = response.headers.get("Content-Length") or "0"
            total = done + (int(said) if said.isascii() and said.isdigit() else 0)
            if total > most:
                raise OSError(f"it has {total:,} bytes, of at most {most:,}")
            keep_pace = _pace(seconds)
            while chunk := response.read1(_CHUNK):
                done += len(chunk)
                if done > most:
                    file.truncate(0)
                    raise OSError(f"it sends more than {most:,} bytes")
                file.write(chunk)
                keep_pace(len(chunk))
                if progress is not None:
                    progress(name, done, total)
    if done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _open_part(part: Path) -> IO[bytes]:
    """Open the part of a file that is there, or a new one; whatever else has its name is removed, and not written."""
    with suppress(OSError):
        descriptor = os.open(part, _PART)
        about = os.fstat(descriptor)
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
            return open(descriptor, "wb")  # of a descriptor, this does not empty the file
        os.close(descriptor)
    with suppress(FileNotFoundError):
        part.unlink()
    return open(os.open(part, _PART | os.O_CREAT | os.O_EXCL, 0o666), "wb")


def _pace(longest: float) -> Callable[[int], None]:
    """Return what is told how many bytes have come, and raises if they come too slowly, or for too many seconds."""
    seconds, least = _PACE
    since, received = time.monotonic(), 0
    end = since + longest

    def count(more: int) -> None:
        nonlocal since, received
        received += more
        now = time.monotonic()
        if now > end:
            raise TimeoutError(f"it takes more than {longest:.0f} seconds")
        if now - since >= seconds:
            if received < least:
                raise TimeoutError(f"it sent {received:,} bytes in {now - since:.0f} seconds")
            since, received = now, 0

    return count


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to others by http and https alone, and never from https to http.

    Args:
        scheme: of the first address.
    """

    def __init__(self, scheme: str) -> None:
        self._schemes = {"https"} if scheme == "https" else {"http", "https"}

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in self._schemes:
            raise OSError(f"it points to {newurl!r}, which is not followed")
        fp.close()  # what comes with a redirection would be read to its end
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Redirects(urlsplit(url).scheme))
