"""Several seeds of one config, trained together in one process: each is a run of its own, in a folder of its own."""

import contextlib
import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from cl_powerprop import interrupts
from cl_powerprop.assemble import choose_device
from cl_powerprop.begun import begun_in, resume_command
from cl_powerprop.composition import compose
from cl_powerprop.config import RunConfig
from cl_powerprop.errors import DivergedError, RunFolderError, SeedError, StorageError, UserError
from cl_powerprop.experiment import Result, run
from cl_powerprop.interrupts import Interrupted
from cl_powerprop.record import Job
from cl_powerprop.run_folder import CHECKPOINT, seed_folder, taken
from cl_powerprop.run_lock import RunLock
from cl_powerprop.seed_group import SeedGroup
from cl_powerprop.shown import as_line
from cl_powerprop.stored_config import NAME as CONFIG
from cl_powerprop.training.lockstep import Ended

_FORESEEN = (UserError, StorageError, DivergedError)


def run_together(
    config: RunConfig | Sequence[str] = (),
    path: str | Path | None = None,
    quiet: bool = False,
    multirun: str | None = None,
    job: Job | None = None,
) -> list[Result]:
    """Train the seeds ``seed`` to ``seed + seeds_together - 1`` of a config together, each into a run folder.

    Each run is that of its seed alone, up to the rounding of floats: its folder repeats it alone. Runs that were cut
    off go on; those that are complete are left as they are. A seed that fails does not stop the others.

    Args:
        config: see :func:`~cl_powerprop.run`.
        path: of the folder that gets a run folder for each seed, `seed_0` and so on; None for the config's ``run_dir``.
        quiet, multirun, job: see :func:`~cl_powerprop.run`.

    Returns:
        What each run leaves, in the order of the seeds.

    Raises:
        UserError: for a config that no run can follow, or if all seeds fail of a user's mistake.
        SeedError: if some seeds fail; the others are complete.
        KeyboardInterrupt, Interrupted: for a signal, after each run has written a checkpoint.
    """
    config = config if isinstance(config, RunConfig) else compose(config)
    path = Path(config.run_dir if path is None else path)
    config.check()
    seeds = range(config.seed, config.seed + config.seeds_together)
    folders = [seed_folder(path, seed) for seed in seeds]
    with interrupts.called(), contextlib.ExitStack() as after:
        interrupts.check()
        _refuse_taken(path)
        left = [index for index, folder in enumerate(folders) if not _is_complete(folder)]
        if left:
            after.callback(_remove_empty, path)
            after.enter_context(RunLock(path).hold())
        group = SeedGroup(len(seeds), choose_device(config.device))
        calls = []
        for index, (seed, folder) in enumerate(zip(seeds, folders, strict=True)):
            own = copy.deepcopy(replace(config, seed=seed, seeds_together=1))
            name = f"{job.name}, seed {seed}" if job else f"seed {seed}"
            # The bar of the first one stands for all.
            live = (job is None or job.live) and index in left[:1]
            known = Job(job.number if job else None, name, live)
            calls.append(partial(run, own, folder, quiet, multirun or path.name, known, group))
        with _saying_what_next(path):
            return _results(dict(zip(seeds, group.lockstep.run(calls), strict=True)))


def _refuse_taken(path: Path) -> None:
    """Refuse a folder that holds a run of its own.

    Raises:
        RunFolderError: if it does.
    """
    if any(os.path.lexists(path / name) for name in ("run.json", CHECKPOINT, CONFIG)):
        raise taken(path)


def _is_complete(folder: Path) -> bool:
    with contextlib.suppress(RunFolderError):  # of which its own run will say more
        begun = begun_in(folder)
        return begun is not None and begun.is_complete
    return False


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


@contextlib.contextmanager
def _saying_what_next(path: Path) -> Iterator[None]:
    """Let an interrupt say how all seeds go on."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        stop.add_note(
            f"the same command with this run_dir goes on with all seeds together, and {resume_command(path)} with one "
            "after the other"
            if any(path.glob(f"seed_*/{CONFIG}"))
            else "nothing was begun yet"
        )
        raise


def _results(ended: dict[int, Ended]) -> list[Result]:
    """Return what all runs leave, or raise what some have failed of."""
    complete = [one.result for one in ended.values() if one.error is None]
    errors = {seed: one.error for seed, one in ended.items() if one.error is not None}
    if not errors:
        return complete
    for error in errors.values():
        if isinstance(error, Interrupted):
            raise Interrupted(error.signal)
    first = next(iter(errors.values()))
    if not complete and all(isinstance(error, UserError) for error in errors.values()):
        raise first
    seeds: dict[str, list[int]] = {}
    for seed, error in errors.items():
        seeds.setdefault(_said(error), []).append(seed)
    reasons = [f"seed{'s' * (len(those) > 1)} {', '.join(map(str, those))}: {why}" for why, those in seeds.items()]
    unforeseen = [error for error in errors.values() if not isinstance(error, _FORESEEN)]
    raise SeedError("; ".join(reasons), complete) from next(iter(unforeseen), None)


def _said(error: BaseException) -> str:
    said = as_line(str(error))
    return said if isinstance(error, _FORESEEN) else f"{type(error).__name__}: {said}"
