"""What a power cut does to a folder, of which a SIGKILL shows nothing: the kernel has what was not synced."""

import itertools
import os
import random
from collections.abc import Sequence
from pathlib import Path


class Disk:
    """What a power cut would take: bytes that were not synced, and names and renames in a folder that was not.

    Args:
        kept: a new folder for what was replaced and may come back.
    """

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._names = map(str, itertools.count())
        self._synced: dict[int, int] = {}  # of each file that has more bytes, by its inode: how many are synced
        self._created: set[str] = set()  # in folders that are not synced
        self._renamed: list[tuple[str, str, Path | None]] = []  # source, target and what the target was

    def create(self, path: str) -> None:
        """Take note that a file is about to be opened, and made if it does not exist."""
        if not os.path.lexists(path):
            self._created.add(path)

    def write(self, descriptor: int) -> None:
        """Take note that a file is about to be written."""
        about = os.fstat(descriptor)
        self._synced.setdefault(about.st_ino, about.st_size)

    def sync(self, descriptor: int) -> None:
        """Take note that a file or folder has been synced."""
        inode = os.fstat(descriptor).st_ino
        self._synced.pop(inode, None)
        folders = {os.path.dirname(path) for path in (*self._created, *(target for _, target, _ in self._renamed))}
        safe = {folder for folder in folders if os.path.exists(folder) and os.stat(folder).st_ino == inode}
        self._created = {path for path in self._created if os.path.dirname(path) not in safe}
        self._renamed = [each for each in self._renamed if os.path.dirname(each[1]) not in safe]

    def rename(self, source: str, target: str) -> None:
        """Take note that a file is about to be renamed."""
        before = None
        if os.path.exists(target):
            self._kept.mkdir(exist_ok=True)
            before = self._kept / next(self._names)
            os.link(target, before)
        self._created.discard(source)
        self._renamed.append((source, target, before))

    def cut_power(self, draws: random.Random, roots: Sequence[str]) -> None:
        """Take away what a power cut may take; of the renames, the last ones are lost."""
        for root in roots:
            for folder, _, names in os.walk(root):
                for name in names:
                    path = os.path.join(folder, name)
                    about = os.lstat(path)
                    if path in self._created and draws.random() < 0.5:
                        os.unlink(path)
                    elif about.st_ino in self._synced:
                        least = min(self._synced[about.st_ino], about.st_size)
                        os.truncate(path, draws.randint(least, about.st_size))
        lost = draws.randint(0, len(self._renamed))
        for source, target, before in reversed(self._renamed[len(self._renamed) - lost :]):
            if os.path.exists(target):
                os.replace(target, source)
            if before is not None:
                os.replace(before, target)
