"""Where run folders are, and what they are called; no link is followed out of the folders that are searched."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cl_powerprop.errors import RunFolderError
from cl_powerprop.run_folder import COPY
from cl_powerprop.shown import as_given, printable

_DEEPEST = 50  # levels below a folder that are searched


def find_run_folders(paths: Iterable[str | os.PathLike[str]], problems: list[str]) -> list[Path]:
    """Return the run folders at or below some paths, each once, in the order of the paths.

    Folders whose name begins with a dot are skipped, and so are the copies kept for a dashboard. A path without a run
    becomes a line of ``problems``, and so does a link that leads out of a path: it is not followed.

    Raises:
        RunFolderError: for a path that does not exist, or if there is no run at all.
    """
    found: dict[Path, Path] = {}
    empty = []
    for path in map(Path, paths):
        if not path.is_dir():
            reason = "is not a folder" if path.exists() else "does not exist"
            raise RunFolderError(f"{path} {reason}; give run folders, or folders that hold them")
        below = list(_walk(path, problems))
        if not below:
            empty.append(f"{as_given(path)} holds no run: no run.json was found at or below it")
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise RunFolderError("; ".join(empty) or "no run folder was given")
    problems += empty
    return list(found.values())


def _walk(root: Path, problems: list[str]) -> Iterator[Path]:
    waiting = [root]
    too_deep = False
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as scanned:
                entries = list(scanned)
        except OSError as error:
            problems.append(f"{_below(root, folder)}: cannot be read ({error.strerror}), left out")
            continue
        if any(entry.name == "run.json" for entry in entries):  # whatever it is: a link, say, is a damaged run
            yield folder
            continue
        searched = [entry for entry in entries if not entry.name.startswith(".") and entry.name != COPY]
        for entry in searched:
            if entry.is_symlink() and os.path.isdir(entry.path) and not _is_inside(entry.path, root):
                problems.append(f"{_below(root, Path(entry.path))}: a link to another folder, which is not followed")
        subfolders = sorted((entry.name for entry in searched if entry.is_dir(follow_symlinks=False)), key=_natural)
        if subfolders and len(folder.relative_to(root).parts) >= _DEEPEST:
            too_deep = True
        else:
            waiting += [folder / name for name in reversed(subfolders)]
    if too_deep:
        problems.append(f"{_below(root, root)}: folders more than {_DEEPEST} levels below are not searched")


def _is_inside(path: str, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _below(root: Path, folder: Path) -> str:
    """Return what a folder is called in a message, by its path from the root on."""
    return printable((root.absolute().name / folder.relative_to(root)).as_posix())


def _natural(name: str) -> tuple[int, str]:
    """Return a sort key under which 2 comes before 10."""
    return (len(name), name) if name.isdecimal() else (0, name)


def run_names(folders: Sequence[Path]) -> dict[str, Path]:
    """Return each folder by its path below the folder they have in common; a single folder by its own name.

    The names tell nobody where a user's home folder is.
    """
    whole = [Path(os.path.abspath(folder)) for folder in folders]
    shared = Path(os.path.commonpath(whole)) if len(folders) > 1 else whole[0].parent
    home = Path.home()
    hidden = home != shared and home.is_relative_to(shared)
    names = [
        f"~/{folder.relative_to(home).as_posix()}"
        if hidden and folder.is_relative_to(home)
        else folder.relative_to(shared).as_posix()
        for folder in whole
    ]
    return dict(zip(map(printable, names), folders, strict=True))
