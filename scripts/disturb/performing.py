"""A case performed: the run is disturbed, goes on by the same command, and is compared with the undisturbed one."""

import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .cases import Case
from .events import Stop
from .judging import differences, status
from .performed import Performed
from .starts import Ended, Start, start
from .sweeps import perform_sweep
from .undisturbed import Undisturbed

_STARTS = 12  # at once
_PROMPT = 10.0  # seconds in which a run ends after a signal
_ROOM = "64m"  # of a disk that was full, once there is room


def perform(case: Case, run: Undisturbed, folder: Path, interrupted: Path | None = None) -> Performed:
    """Perform a case in a new folder, which is removed afterwards if all is well.

    Args:
        case: what to do.
        run: the undisturbed run of its config.
        folder: to be made.
        interrupted: the folder in which the interrupted run lies, for a case that begins with it.
    """
    folder.mkdir(parents=True)
    if case.interrupted and interrupted is not None:
        shutil.copytree(interrupted, folder, dirs_exist_ok=True)
    done = _BY_KIND[case.kind](case, run, folder)
    if done.problems:
        (folder / "problems.txt").write_text(f"{case.id}\n{done.outcome}\n{done.last_lines}\n", encoding="utf-8")
    else:
        shutil.rmtree(folder)
    return done


def interrupt(run: Undisturbed, folder: Path) -> Ended:
    """Stop a run by SIGKILL in the middle of its second task, in a new folder."""
    folder.mkdir(parents=True)
    return start(run.command, folder, run.before(run.middle))


def _stopped(case: Case, run: Undisturbed, folder: Path) -> Performed:
    """Stop the run as often as the case says; then let it finish."""
    done = Performed(case, [])
    ends = [_interruption(run)] if case.interrupted else []
    for stop in case.stops:
        ended = start(run.command, folder, stop)
        ends.append(ended)
        done.problems = _unexpected(ended, stop, folder / "run")
        if stop.signal != signal.SIGKILL and ended.seconds is not None:
            done.seconds = ended.seconds
        if done.problems:
            done.last_lines = ended.last_lines
            return done
    lost = 2 if case.kind == "power" else len(ends)  # a power cut may take the newest checkpoint
    _finish(done, run, folder, ends, lost * run.interval)
    if case.kind == "signal" and not done.problems:
        _again(done, run, folder)
    return done


def _unexpected(ended: Ended, stop: Stop, folder: Path) -> list[str]:
    """Return what is wrong with the end of a start that got a signal."""
    if not ended.in_time:
        return ["it did not end"]
    if ended.code == 0:  # it had finished before
        return [] if status(folder) == "complete" else ["exit code 0, and it is not complete"]
    if stop.signal == signal.SIGKILL:
        return [] if ended.code == -signal.SIGKILL else [f"exit code {ended.code} before the kill"]
    code = 128 + stop.signal
    found = status(folder)
    if found in (None, "complete"):  # before or after all that can be interrupted, the signal may kill it at once
        return [] if ended.code in (code, -stop.signal) else [f"exit code {ended.code}, not {code}"]
    problems = [] if ended.code == code else [f"exit code {ended.code}, not {code}"]
    if found != "interrupted":
        problems.append(f"its status is {found}")
    if ended.seconds is not None and ended.seconds > _PROMPT:
        problems.append(f"it took {ended.seconds:.1f} s to end")
    if len(lines := ended.stderr.splitlines()) > 1:
        problems.append(f"{len(lines)} lines on stderr")
    return problems


def _finish(done: Performed, run: Undisturbed, folder: Path, before: list[Ended], allowed: int) -> None:
    """Let a run go on undisturbed to its end, and compare it."""
    way = ("resume", "run") if done.case.by_resume else run.command
    last = start(way, folder)
    done.repeated = sum(each.steps for each in (*before, last)) - run.steps
    done.allowed = allowed
    if not last.in_time:
        done.problems.append("the run that went on did not end")
    elif last.code:
        done.problems.append(f"exit code {last.code} when it was to go on")
    done.problems += differences(folder / "run", run.run)
    if done.repeated > allowed:
        done.problems.append(f"{done.repeated} steps repeated, of at most {allowed}")
    if done.problems:
        done.last_lines = last.last_lines


def _again(done: Performed, run: Undisturbed, folder: Path) -> None:
    """Start a complete run once more: it is left as it is."""
    again = start(run.command, folder)
    if again.code or again.steps or differences(folder / "run", run.run):
        done.problems.append(f"started once more when complete: exit code {again.code}, {again.steps} steps")
        done.last_lines = again.last_lines


def _in_process(case: Case, run: Undisturbed, folder: Path) -> Performed:
    done = Performed(case, [])
    ended = start(run.command, folder, case.stops[0], separate=True)
    done.problems = _unexpected(ended, case.stops[0], folder / "run")
    done.seconds = ended.seconds if case.stops[0].signal != signal.SIGKILL else None
    last = ended if done.problems else start(run.command, folder, separate=True)
    if not done.problems:
        done.problems = [f"exit code {last.code} when it was to go on"] if last.code else []
        done.problems += differences(folder / "run", run.run)
    done.last_lines = last.last_lines if done.problems else ""
    return done


def _interruption(run: Undisturbed) -> Ended:
    """Return how the run ended that :func:`interrupt` made."""
    return Ended(-signal.SIGKILL, run.trace[: run.middle + 1].count("step"))


def _damaged(case: Case, run: Undisturbed, folder: Path) -> Performed:
    done = Performed(case, [])
    damage(folder / "run" / case.file, case.damage, random.Random(case.seed))
    generations = 2 if case.file == "checkpoint.safetensors" else 1
    _finish(done, run, folder, [_interruption(run)], generations * run.interval)
    return done


def damage(file: Path, how: str, draws: random.Random) -> None:
    """Damage a file: cut it to "zero" bytes or "half", "flip" one random bit, or have it "removed"."""
    content = bytearray(file.read_bytes())
    if how == "removed":
        file.unlink()
    elif how in ("zero", "half") or not content:
        file.write_bytes(content[: len(content) // 2] if how == "half" else b"")
    else:
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        file.write_bytes(content)


def _on_full_disk(case: Case, run: Undisturbed, folder: Path) -> Performed:
    done = Performed(case, [])
    with _disk(folder / "run", case.disk) as make_room:
        first = start(run.command, folder)
        found = status(folder / "run")
        lines = first.stderr.splitlines()
        if not first.in_time:
            done.problems.append("it did not end")
        elif first.code < 0 or (first.code == 0) != (found == "complete"):
            done.problems.append(f"exit code {first.code}, status {found}")
        elif first.code and len(lines) != 1:
            done.problems.append(f"{len(lines)} lines on stderr")
        elif found not in (None, "failed", "complete"):
            done.problems.append(f"its status is {found}")
        done.last_lines = first.last_lines
        make_room()
        if not done.problems:
            _finish(done, run, folder, [first], run.interval)
    return done


@contextlib.contextmanager
def _disk(folder: Path, size: int) -> Iterator[Callable[[], object]]:
    """Mount a disk of so many bytes as a folder, and yield what makes it large."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", folder], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", f"remount,size={_ROOM}", folder], check=True)
    finally:
        kept = folder.with_name("kept")
        shutil.copytree(folder, kept)
        subprocess.run(["umount", folder], check=True)


def _all_at_once(case: Case, run: Undisturbed, folder: Path) -> Performed:
    """Start the command in one folder from several processes; the one that trains waits until the others have ended."""
    done = Performed(case, [])
    starts = [Start(run.command, folder, waits=True, held=True, name=f"start{i}") for i in range(_STARTS)]
    time.sleep(0.05)
    for each in random.Random(case.seed).sample(starts, len(starts)):
        each.board.begin = 1
    while not all(each.poll() or each.board.steps > 1 for each in starts):
        time.sleep(0.001)
    for each in starts:
        each.board.release = 1
    ends = [each.wait() for each in starts]
    ran = [ended for ended in ends if ended.steps]
    if len(ran) != 1 or ran[0].code:
        done.problems.append(f"{len(ran)} of {len(ends)} ran, with exit codes {[ended.code for ended in ran]}")
    for ended in ends:
        if not ended.steps and (ended.code <= 0 or len(ended.stderr.splitlines()) != 1):
            lines = len(ended.stderr.splitlines())
            done.problems.append(f"one that did not run: exit code {ended.code}, {lines} lines on stderr")
            done.last_lines = ended.last_lines
    done.problems += differences(folder / "run", run.run)
    return done


_BY_KIND: dict[str, Callable[[Case, Undisturbed, Path], Performed]] = {
    "kill": _stopped,
    "operations": _stopped,
    "power": _stopped,
    "signal": _stopped,
    "process": _in_process,
    "damage": _damaged,
    "disk": _on_full_disk,
    "together": _all_at_once,
    "sweep": perform_sweep,
}
