"""Download a file and check it: an interrupted download is resumed, and only a checked file gets its final name."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from cl_powerprop.data.dataset import Progress
from cl_powerprop.errors import DataError

_CHUNK = 1 << 18


def md5(path: Path) -> str:
    """Return the MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch(urls: Sequence[str], path: Path, expected_md5: str, progress: Progress | None = None) -> None:
    """Download ``path`` from the first of ``urls`` that sends a file with the expected checksum.

    An interrupted download is kept as ``<path>.part`` and continued by the next call.

    Raises:
        DataError: if no URL sends such a file, or the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path.parent} cannot be made: {error.strerror}") from error
    part = path.with_name(path.name + ".part")
    problems = []
    for url in urls:
        try:
            _stream(url, part, path.name, progress)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            problems.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        found = md5(part)
        if found == expected_md5:
            os.replace(part, path)
            return
        part.unlink()
        problems.append(f"{url}: checksum {found} is not {expected_md5}")
    raise DataError(f"could not download {path.name} ({'; '.join(problems)})")


def _stream(url: str, part: Path, name: str, progress: Progress | None) -> None:
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send; the checksum is compared next
            return
        raise
    with response:
        resumed = response.status == 206
        done = start if resumed else 0
        total = done + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(name, done, total)
    if done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")
