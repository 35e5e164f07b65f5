"""A multirun in which the process of a job dies, or that is told to stop, beside one whose jobs ran one by one."""

import json
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from .cases import Case
from .judging import differences
from .performed import Performed
from .starts import Ended, Start, start
from .undisturbed import Undisturbed

JOBS = 12
_AT_A_TIME = 2
_PROMPT = 15.0  # seconds in which all processes end after a signal
_LATER = 0.5  # seconds at most from the point where so many jobs are complete
_LIST = "jobs.jsonl"


def perform_sweep(case: Case, run: Undisturbed, folder: Path) -> Performed:
    """Kill a random job's process, or stop the command, at a random moment; see that all jobs end as they should."""
    draws = random.Random(case.seed)
    sent = case.stops[0].signal
    words = [word for word in run.command if not word.startswith("hydra/launcher=")]
    words.append(f"hydra.launcher.n_jobs={_AT_A_TIME}")
    started = Start(words, folder, separate=True)
    worker = _worker(folder / "run", started, draws)
    done = Performed(case, [])
    if worker is None:
        done.problems.append("no job began")
    elif sent == signal.SIGKILL:
        worker.kill()
    else:
        done.problems, done.seconds = _stop(started, sent)
    ended = started.wait()
    if sent != signal.SIGKILL and not done.problems:
        if ended.code != 128 + sent:
            done.problems.append(f"exit code {ended.code}, not {128 + sent}")
        ended = start(words, folder, separate=True)
    done.problems += _wrong(ended, folder / "run", run, is_retried=sent == signal.SIGKILL)
    done.last_lines = ended.last_lines if done.problems else ""
    return done


def _worker(sweep: Path, started: Start, draws: random.Random) -> psutil.Process | None:
    """Wait until a random number of jobs are complete and a random time has passed; return the process of a job."""
    complete = draws.randrange(JOBS - _AT_A_TIME)
    late = draws.uniform(0, _LATER)
    while not started.poll():
        if len(_processes(sweep, "complete")) >= complete:
            time.sleep(late)
            late = 0.0
            working = _processes(sweep, "running")
            draws.shuffle(working)
            for number in working:
                try:
                    return psutil.Process(number)
                except psutil.NoSuchProcess:
                    continue
        time.sleep(0.01)
    return None


def _processes(sweep: Path, status: str) -> list[int]:
    """Return the processes of the runs that have a status."""
    found = []
    for file in sorted(sweep.glob("*/run.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if record.get("status") == status:
            found.append(int(record.get("process") or 0))
    return found


def _stop(started: Start, number: int) -> tuple[list[str], float]:
    """Send the command a signal; return what went wrong, and the seconds until the last of its processes was gone."""
    command = psutil.Process(started.process)
    family = command.children(recursive=True)
    begun = time.monotonic()
    command.send_signal(number)
    while (left := [each for each in (command, *family) if _is_left(each)]) and time.monotonic() - begun < _PROMPT:
        time.sleep(0.02)
    return [f"{len(left)} processes are left"] if left else [], time.monotonic() - begun


def _is_left(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wrong(ended: Ended, sweep: Path, run: Undisturbed, is_retried: bool) -> list[str]:
    """Return what is wrong with a multirun that has ended."""
    problems = [f"exit code {ended.code}"] if ended.code else []
    if is_retried and "it is tried again" not in ended.stdout:
        problems.append("no line says that a job is tried again")
    states = _listed(sweep / _LIST)
    if states != ["complete"] * JOBS:
        problems.append(f"{_LIST} has {states.count('complete')} of {JOBS} jobs as complete")
    (sweep / _LIST).unlink(missing_ok=True)  # one by one, there is no list
    return problems + differences(sweep, run.run)


def _listed(file: Path) -> Sequence[str]:
    """Return the last state of each job in the list."""
    if not file.exists():
        return []
    jobs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    return list({job["job"]: job["state"] for job in jobs}.values())
