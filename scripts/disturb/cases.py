"""The cases: which run is disturbed, when and how. A case depends on the seed and its own id alone."""

import itertools
import random
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .events import Stop, is_operation
from .undisturbed import Undisturbed

_MOMENTS = ("training", "search", "retraining", "evaluation", "checkpoint", "rename")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_DAMAGE = ("zero", "half", "flip", "flip again", "removed")
_LEAST_DISK = 16 << 10  # bytes


@dataclass(frozen=True)
class Case:
    """One disturbed run.

    Attributes:
        kind: the choice of `--cases`.
        config: its name.
        name: what tells it from others of its kind and config.
        point: when and how it is disturbed, in words.
        stops: for each start that is stopped, where.
        interrupted: it begins with the folder of a run that was killed in its second task.
        file: that is damaged, relative to the run folder.
        damage: how.
        by_resume: it goes on by `cl-powerprop resume` and not by the same command.
        disk: bytes of the disk.
        seed: of what is drawn as it is performed.
    """

    kind: str
    config: str
    name: str
    point: str
    stops: tuple[Stop, ...] = ()
    interrupted: bool = False
    file: str = ""
    damage: str = ""
    by_resume: bool = False
    disk: int = 0
    seed: str = ""

    @property
    def id(self) -> str:
        """What `--only` takes."""
        return f"{self.kind}/{self.config}/{self.name}"


def kills(run: Undisturbed, seed: int, points: int) -> Iterator[Case]:
    """SIGKILL at points of the run: every second one by the clock, the others at named moments; some come twice."""
    for number in range(points):
        draws = _draws(seed, "kill", run.name, number)
        stop, point = _clock(run, draws) if number % 2 == 0 else _moment(run, draws, number // 2)
        stops = [stop]
        if number % 4 > 1:
            index = draws.randrange(len(run.trace) // 2)
            stops.append(run.before(index))
            point += f", then {_described(run, index)}, of the run that goes on"
        yield Case("kill", run.name, str(number), point, tuple(stops))


def operations(run: Undisturbed) -> Iterator[Case]:
    """SIGKILL before each operation on a file, and within each write."""
    for number, index in enumerate(run.operations):
        point = _described(run, index)
        yield Case("operations", run.name, str(number), point, (Stop(operation=number),))
        if run.trace[index].startswith("write "):
            stop = Stop(operation=number, torn=True)
            yield Case("operations", run.name, f"{number}-half", f"{point}, half done", (stop,))


def going_on(run: Undisturbed, trace: Sequence[str]) -> Iterator[Case]:
    """SIGKILL before each operation on a file of a run that goes on, until it trains again.

    Args:
        run: the undisturbed run.
        trace: the events of a run that goes on.
    """
    operations = filter(is_operation, itertools.takewhile(lambda event: event != "step", trace))
    for number, name in enumerate(operations):
        point = f"before operation {number} of the run that goes on, {_shortened(name)}"
        yield Case("operations", run.name, f"again-{number}", point, (Stop(operation=number),), interrupted=True)


def power_cuts(run: Undisturbed, seed: int) -> Iterator[Case]:
    """A power cut before each operation on a file: what is not synced may be lost."""
    for number, index in enumerate(run.operations):
        draws = _draws(seed, "power", run.name, number)
        stop = Stop(operation=number, torn=draws.random() < 0.5, power=draws.randrange(2**32))
        yield Case("power", run.name, str(number), _described(run, index), (stop,))


def signals(run: Undisturbed, seed: int, points: int) -> Iterator[Case]:
    """SIGTERM, SIGINT and SIGUSR1 at points as those of SIGKILL."""
    for number in range(points):
        draws = _draws(seed, "signal", run.name, number)
        stop, point = _clock(run, draws) if number % 3 == 0 else _moment(run, draws, number)
        sent = _SIGNALS[number % len(_SIGNALS)]
        stop = replace(stop, signal=sent)
        yield Case("signal", run.name, str(number), f"{sent.name} {point}", (stop,))


def processes(run: Undisturbed, seed: int, cpu: float) -> Iterator[Case]:
    """SIGKILL and SIGTERM for processes of their own, started as a user does.

    Args:
        run: the undisturbed run.
        seed: of the points.
        cpu: seconds of CPU time that such a process takes in all.
    """
    for sent in (signal.SIGKILL, signal.SIGTERM):
        seconds = cpu * _draws(seed, "process", run.name, sent).uniform(0.5, 1.0)  # importing takes the first half
        point = f"{sent.name} after {seconds / cpu:.0%} of the time"
        yield Case("process", run.name, sent.name, point, (Stop(seconds=seconds, signal=sent),))


def damages(run: Undisturbed, seed: int, interrupted: Path) -> Iterator[Case]:
    """Each file of an interrupted run folder damaged in each way; it goes on by either command.

    Args:
        run: the undisturbed run.
        seed: of the bits that flip.
        interrupted: the run folder.
    """
    for file in sorted(str(path.relative_to(interrupted)) for path in interrupted.rglob("*") if path.is_file()):
        for damage in _DAMAGE:
            for by_resume in (False, True):
                way = "resume" if by_resume else "again"
                name = f"{file}-{damage.replace(' ', '-')}-{way}"
                point = f"{file}: {damage}, then {'cl-powerprop resume' if by_resume else 'the same command'}"
                yield Case(
                    *("damage", run.name, name, point),
                    interrupted=True,
                    file=file,
                    damage=damage,
                    by_resume=by_resume,
                    seed=f"{seed}/{file}/{damage}",
                )


def full_disks(run: Undisturbed, seed: int, points: int, size: int | None = None) -> Iterator[Case]:
    """Disks that have room for a part of the run.

    Args:
        run: the undisturbed run.
        seed: of the sizes.
        points: how many there are.
        size: bytes of each; None for random ones up to what the finished folder takes and as much again.
    """
    total = sum(path.stat().st_size for path in run.run.rglob("*") if path.is_file())
    for number in range(points):
        drawn = _draws(seed, "disk", run.name, number).randrange(_LEAST_DISK, 2 * total)
        disk = size or drawn
        yield Case("disk", run.name, str(number), f"a disk of {disk / 2**20:.2f} MB", disk=disk)


def together(run: Undisturbed, seed: int, points: int) -> Iterator[Case]:
    """Several processes started in one folder at the same moment."""
    for number in range(points):
        yield Case("together", run.name, str(number), "12 starts at once", seed=f"{seed}/{number}")


def sweeps(run: Undisturbed, seed: int, points: int) -> Iterator[Case]:
    """A multirun: SIGKILL for the process of one of its jobs, and half as often SIGTERM for the command."""
    for sent, whose, count in (
        (signal.SIGKILL, "the process of a job", points),
        (signal.SIGTERM, "the command", points // 2),
    ):
        for number in range(count):
            name = f"{sent.name}-{number}"
            point = f"{sent.name} for {whose}"
            yield Case("sweep", run.name, name, point, (Stop(signal=sent),), seed=f"{seed}/sweep/{name}")


def _clock(run: Undisturbed, draws: random.Random) -> tuple[Stop, str]:
    share = draws.uniform(0.05, 1.0)
    return Stop(seconds=share * run.cpu), f"after {share:.0%} of the time"


def _moment(run: Undisturbed, draws: random.Random, number: int) -> tuple[Stop, str]:
    known = [moment for moment in _MOMENTS if run.moments.get(moment)]
    moment = known[number % len(known)]
    index = min(draws.choice(run.moments[moment]), len(run.trace) - 1)
    torn = run.trace[index].startswith("write ") and draws.random() < 0.5
    return run.before(index, torn=torn), f"in {moment}: {_described(run, index)}{', half done' if torn else ''}"


def _described(run: Undisturbed, index: int) -> str:
    stop = run.before(index)
    number = f"event {stop.event}" if stop.operation is None else f"operation {stop.operation}"
    return f"before {number}, {_shortened(run.trace[index])}"


def _shortened(event: str) -> str:
    """Return an event without the random part of the name of a file that is being written."""
    return re.sub(r"\.[0-9a-f]{12}\.part$", ".part", event)


def _draws(*purpose: object) -> random.Random:
    return random.Random("/".join(map(str, purpose)))
