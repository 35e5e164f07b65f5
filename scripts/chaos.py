"""Stops, starves and damages runs in every way that we know, and checks that each ends as if nothing had happened.

python scripts/chaos.py                              # all cases: about an hour of CPU time
python scripts/chaos.py --quick                      # some of each kind, in about a minute
python scripts/chaos.py --only kill/epn/7            # one case again, or all whose ids begin so
python scripts/chaos.py --resume --table docs/reliability.md

A run is disturbed, the same command is given again, and the folder is compared with that of a run that nothing has
disturbed: every CSV file and every tensor must have the same bytes, the run must be complete, nothing may be left over,
and no more steps may have been done twice than there are between two checkpoints. The exit code is 1 if a case fails;
its folder is kept. Linux only; `disk` mounts small disks, in a namespace of its own, and is left out where it cannot.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a process with threads cannot be forked

from disturb import cases, starts, table
from disturb.cases import Case
from disturb.configs import CONFIGS, LARGE, SWEEP, write_pictures
from disturb.performed import IDENTICAL, Performed
from disturb.performing import interrupt, perform
from disturb.undisturbed import Undisturbed, make

_NAMESPACE = "CHAOS_NAMESPACE"  # set in the process that may mount
_QUICK = ("epn", "ewc", "rigl")
_MOST_QUICK = 6  # cases of a kind
_ONE = "epn"  # the config of the kinds that need one only
_DAMAGED = ("epn", "rigl")


def main() -> int:
    """Perform the cases that the command line names; return the exit code."""
    options = _parser().parse_args()
    if "disk" in options.cases and _NAMESPACE not in os.environ and _can_mount():
        os.environ[_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
    out: Path = options.out.resolve()
    results = out / "results.csv"
    known = table.read(results) if options.resume else {}
    if not options.resume:
        shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(out / "undisturbed", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    starts.preload()
    write_pictures(out / "undisturbed" / "data")
    plan = Plan(options, out / "undisturbed")
    todo = [case for case in plan.cases() if known.get(case.id, {}).get("outcome") != IDENTICAL]
    print(f"{len(todo)} cases, {len(known)} known", flush=True)
    begun = time.monotonic()
    performer, context = _Performer(plan, out), multiprocessing.get_context("fork")
    with ProcessPoolExecutor(options.jobs, context) as pool:
        for number, ended in enumerate(as_completed([pool.submit(performer, case) for case in todo]), 1):
            done = ended.result()
            known[done.case.id] = table.row(done)
            table.append(results, known[done.case.id])
            _tell(done, number, len(todo), options)
    failed = sum(each["outcome"] != IDENTICAL for each in known.values())
    text = table.tables(known.values())
    print(f"\n{text}\n{len(known)} cases, {failed} failed; {time.monotonic() - begun:.0f} s; {results}")
    if options.table is not None:
        table.put(options.table, text)
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--cases", type=_names, default=list(_KINDS), metavar="KINDS", help=", ".join(_KINDS))
    parser.add_argument("--configs", type=_names, default=list(CONFIGS), metavar="NAMES", help=", ".join(CONFIGS))
    parser.add_argument("--points", type=int, default=20, help="kills for each config; half as many signals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help=f"a few cases of each kind, but for process, of {', '.join(_QUICK)}"
    )
    parser.add_argument("--only", default="", metavar="ID", help="cases whose ids begin so")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), metavar="DIR", help="is replaced; runs/chaos")
    parser.add_argument("--resume", action="store_true", help="leave out what was found identical in DIR")
    parser.add_argument("--table", type=Path, metavar="FILE", help="a document whose tables are to be replaced")
    return parser


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _can_mount() -> bool:
    test = "mount -t tmpfs -o size=1m chaos /mnt"
    return shutil.which("unshare") is not None and not subprocess.call(
        ["unshare", "-rm", "sh", "-c", test], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


class Plan:
    """Which cases there are.

    Args:
        options: of the command line.
        folder: for the undisturbed runs, each of which is made when it is first asked for.

    Attributes:
        runs: the undisturbed runs by the config's name.
        interrupted: folders with interrupted runs, by the config's name.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.runs: dict[str, Undisturbed] = {}
        self.interrupted: dict[str, Path] = {}
        self._options = options
        self._folder = folder
        self._points = 2 if options.quick else options.points
        self._configs = [name for name in _QUICK if name in options.configs] if options.quick else options.configs

    def cases(self) -> list[Case]:
        """Return all cases that the options name."""
        found: list[Case] = []
        for kind in self._options.cases:
            if kind in ("process", "sweep") and self._options.quick:  # each start imports torch
                continue
            own = [case for case in _KINDS[kind](self) if case.id.startswith(self._options.only)]
            most = _MOST_QUICK if self._options.quick and not self._options.only else len(own)
            found += random.Random(f"{self._options.seed}/{kind}").sample(own, min(most, len(own)))
        return found

    def _run(self, name: str) -> Undisturbed:
        if name not in self.runs:
            words = {**CONFIGS, "large": LARGE, "sweep": SWEEP}[name]
            words = tuple(word.replace("{data}", str(self._folder / "data")) for word in words)
            self.runs[name] = make(name, words, self._folder / name)
        return self.runs[name]

    def _interrupt(self, run: Undisturbed) -> Path:
        if run.name not in self.interrupted:
            folder = self._folder / f"{run.name}-interrupted"
            interrupt(run, folder)
            self.interrupted[run.name] = folder
        return self.interrupted[run.name]

    def _wanted(self, kind: str, *names: str) -> Iterator[Undisturbed]:
        """Yield the undisturbed run of each config, of those names if any are given, that `--only` does not exclude."""
        only = self._options.only
        for name in names or self._configs:
            if f"{kind}/{name}/".startswith(only) or only.startswith(f"{kind}/{name}/"):
                yield self._run(name)

    def kill(self) -> Iterator[Case]:
        for run in self._wanted("kill"):
            yield from cases.kills(run, self._options.seed, self._points)

    def operations(self) -> Iterator[Case]:
        for run in self._wanted("operations", _ONE):
            yield from cases.operations(run)
            folder = self._folder / f"{run.name}-goes-on"
            shutil.copytree(self._interrupt(run), folder)
            starts.start(run.command, folder, trace=folder / "trace.json")
            yield from cases.going_on(run, json.loads((folder / "trace.json").read_text(encoding="utf-8")))

    def power(self) -> Iterator[Case]:
        for run in self._wanted("power", _ONE):
            yield from cases.power_cuts(run, self._options.seed)

    def signal(self) -> Iterator[Case]:
        for run in self._wanted("signal"):
            yield from cases.signals(run, self._options.seed, max(2, self._points // 2))

    def process(self) -> Iterator[Case]:
        for run in self._wanted("process"):
            folder = self._folder / f"{run.name}-process"
            folder.mkdir(exist_ok=True)
            yield from cases.processes(run, self._options.seed, starts.start(run.command, folder, separate=True).cpu)

    def damage(self) -> Iterator[Case]:
        for run in self._wanted("damage", *(_DAMAGED[:1] if self._options.quick else _DAMAGED)):
            yield from cases.damages(run, self._options.seed, self._interrupt(run) / "run")

    def disk(self) -> Iterator[Case]:
        if _NAMESPACE not in os.environ:
            print("disk: left out, for no disk can be mounted here")
            return
        for run in self._wanted("disk", _ONE):
            yield from cases.full_disks(run, self._options.seed, self._points)
        for run in self._wanted("disk", "large"):
            yield from cases.full_disks(run, self._options.seed, 1, size=16 << 20)

    def together(self) -> Iterator[Case]:
        for run in self._wanted("together", _ONE):
            yield from cases.together(run, self._options.seed, max(1, self._points // 4))

    def sweep(self) -> Iterator[Case]:
        for run in self._wanted("sweep", "sweep"):
            yield from cases.sweeps(run, self._options.seed, self._points // 2)


_KINDS: dict[str, Callable[[Plan], Iterator[Case]]] = {
    "kill": Plan.kill,
    "operations": Plan.operations,
    "power": Plan.power,
    "signal": Plan.signal,
    "process": Plan.process,
    "damage": Plan.damage,
    "disk": Plan.disk,
    "together": Plan.together,
    "sweep": Plan.sweep,
}


class _Performer:
    """Performs a case in a process of the pool."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self._runs = plan.runs
        self._interrupted = plan.interrupted
        self._out = out

    def __call__(self, case: Case) -> Performed:
        folder = self._out / "cases" / case.id
        shutil.rmtree(folder, ignore_errors=True)
        return perform(case, self._runs[case.config], folder, self._interrupted.get(case.config))


def _tell(done: Performed, number: int, total: int, options: argparse.Namespace) -> None:
    if not done.problems:
        if number % 50 == 0:
            print(f"{number}/{total}", flush=True)
        return
    print(f"\n{number}/{total} {done.case.id}, seed {options.seed}: {done.case.point}\n  {done.outcome}")
    for line in done.last_lines.splitlines():
        print(f"  | {line}")
    points = f" --points {options.points}" if options.points != 20 else ""
    print(f"  again: python scripts/chaos.py --only {done.case.id} --seed {options.seed}{points}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
