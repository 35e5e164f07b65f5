"""One run from a config: assemble its parts, open its results, and learn, from the beginning or from a checkpoint."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from cl_powerprop import interrupts
from cl_powerprop.assemble import assemble, choose_device
from cl_powerprop.begun import Begun, begun_in, describe, saying_where
from cl_powerprop.checkpointing import make_checkpoints, restore, saver
from cl_powerprop.composition import compose, group_name
from cl_powerprop.config import RunConfig, left_out, repeatable_yaml, shareable
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.learning import learn
from cl_powerprop.output import say
from cl_powerprop.parts import Parts
from cl_powerprop.privacy import hide
from cl_powerprop.process_group import from_first, process_group, wait_for_all
from cl_powerprop.record import Facts, Job
from cl_powerprop.references import load_references
from cl_powerprop.results.results import Results
from cl_powerprop.run_folder import RunFolder, UnwrittenFolder, finite, taken, tidy
from cl_powerprop.run_lock import RunLock
from cl_powerprop.saving import load
from cl_powerprop.seed_group import SeedGroup
from cl_powerprop.shown import printable
from cl_powerprop.source import is_verified
from cl_powerprop.torchrun import place

log = logging.getLogger("cl_powerprop")


@dataclass(frozen=True)
class Result:
    """What a run leaves.

    Attributes:
        path: of its folder.
        record: the content of its `run.json`.
        trained: the trained network; None for a run that was complete before.
    """

    path: Path
    record: dict[str, Any]
    trained: nn.Module | None = field(default=None, repr=False)

    @property
    def model(self) -> nn.Module:
        """The trained network; that of a run that was complete before is loaded from its folder.

        Raises:
            DataError: if the folder does not have it, as with ``save_model=false``.
        """
        return load(self.path) if self.trained is None else self.trained


def run(
    config: RunConfig | Sequence[str] = (),
    path: str | Path | None = None,
    quiet: bool = False,
    multirun: str | None = None,
    job: Job | None = None,
    group: SeedGroup | None = None,
    watch: Callable[[Results], None] | None = None,
) -> Result:
    """Learn the tasks of a config one after the other, and write a run folder.

    A run of the same config that was cut off in this folder goes on, with the same numbers as if it had not been; one
    that is complete is left as it is. ``resume=never`` refuses both.

    Args:
        config: what to run: a config, or overrides as the command takes them, as in ``["strategy=packnet", "seed=1"]``.
        path: of the run folder; None for the config's ``run_dir``.
        quiet: show no progress, whatever the config says.
        multirun: name of the multirun that this run is a job of; dashboards group by it.
        job: the run's place in that multirun.
        group: seeds that it is trained together with, by :func:`cl_powerprop.run_together`.
        watch: called with the results after each task but the last; raises ``PrunedError`` to end the run.

    Raises:
        UserError: for a config that no run can follow, data that is missing or damaged, or a folder that is taken: by
            a run with other settings, by another process, or by anything else.
        DivergedError: if the loss is no longer finite; what was finished is in the folder, marked failed.
        KeyboardInterrupt: for SIGINT, as by Ctrl-C, after a checkpoint is written.
        Interrupted: likewise for SIGTERM and SIGUSR1; if nobody catches it, the program ends with 128 plus the signal's
            number.
    """
    config = config if isinstance(config, RunConfig) else compose(config)
    path = Path(config.run_dir if path is None else path)
    config.check()
    if config.seeds_together > 1:
        raise ConfigurationError(
            f"seeds_together={config.seeds_together} makes several runs: use cl-powerprop run, or "
            "cl_powerprop.run_together in Python"
        )
    with interrupts.called():
        interrupts.check()  # a signal that came as the run before was finished
        with process_group(choose_device(config.device)):
            path = Path(from_first(str(path)))  # a default one has the time in its name
            _hide_places(config, path)
            with saying_where(path):
                return _run_in(path, config, quiet or not place().is_first, multirun, job, group, watch)


def _run_in(
    path: Path,
    config: RunConfig,
    quiet: bool,
    multirun: str | None,
    job: Job | None,
    group: SeedGroup | None,
    watch: Callable[[Results], None] | None = None,
) -> Result:
    if (complete := _complete(config, path, quiet)) is not None:  # perhaps where nothing can be written
        return complete
    with contextlib.ExitStack() as after:
        if place().is_first:
            after.callback(_remove_empty, path)
            after.enter_context(RunLock(path).hold())
        return _complete(config, path, quiet) or _run(config, path, quiet, multirun, job, group, watch)


def _remove_empty(path: Path) -> None:
    """Remove a folder if nothing was written to it."""
    with contextlib.suppress(OSError):
        path.rmdir()


def _complete(config: RunConfig, path: Path, quiet: bool) -> Result | None:
    """Return what is in a folder if it is a complete run with these settings: what the first process finds there.

    Raises:
        RunFolderError: if the folder is taken by anything else that the config does not go on with.
    """
    record = from_first(_complete_record(config, path) if place().is_first else None)
    if record is None:
        return None
    if not quiet:
        say(f"{printable(str(path))}: complete")
    return Result(path, record)


def _complete_record(config: RunConfig, path: Path) -> dict[str, Any] | None:
    begun = begun_in(path)
    if begun is not None and config.resume == "never":
        raise taken(path)
    if begun is None or not begun.is_complete:
        return None
    begun.check_same(config, None)
    begun.tidy()
    return dict(begun.record)


def _run(
    config: RunConfig,
    path: Path,
    quiet: bool,
    multirun: str | None,
    job: Job | None,
    group: SeedGroup | None,
    watch: Callable[[Results], None] | None,
) -> Result:
    begun = begun_in(path)
    checkpoint = None if begun is None else begun.checkpoint(log.warning, sets_aside=place().is_first)
    if (where := describe(checkpoint)) != (of_first := from_first(where)):
        raise RunFolderError(
            f"{path} is another folder for the first process, which is {of_first}; let all see the same"
        )
    if begun is not None:
        begun.check_same(config, checkpoint)
        if not quiet:
            say(f"{printable(str(path))}: {where}")
    wait_for_all()  # the others read what the first one is about to write
    messages: list[str] = []
    references = []
    if checkpoint is None:
        references = load_references(config, _reference_run(quiet, job, group), messages.append)

    parts = assemble(config, None if group is None else group.load_sequence(config))
    if group is not None:
        parts.learner.lockstep = group.lockstep
    results = open_results(config, path, parts, multirun, quiet, begun, job, 1 if group is None else group.seeds)
    results.state.messages += messages
    for reference in references:
        results.add_reference(reference)
    if checkpoint is not None:
        restore(checkpoint, parts, results)
    else:
        for option in left_out(config):
            results.tell(
                f"{option} looks like a secret: it is left out of the run folder; give it again to go on or repeat"
            )
    parts.checkpoints = make_checkpoints(config, parts, results, checkpoint)
    parts.save = saver(config, parts, parts.checkpoints)
    parts.watch = watch or parts.watch
    learn(parts, results)
    if place().is_first:
        with interrupts.saving():
            tidy(path, is_complete=True)
    return Result(path, finite(results.as_json()), parts.learner.model)


def _reference_run(quiet: bool, job: Job | None, group: SeedGroup | None) -> Callable[[RunConfig, Path], Any]:
    """Return what trains a reference run; its lines of progress say that it is one, and for which job."""

    def train(config: RunConfig, path: Path) -> Result:
        name = f"reference {config.strategy.name}"
        known = Job(None, f"{job.title}, {name}", job.live) if job else Job(None, name)
        interrupts.check()
        _hide_places(config, path)
        return _run_in(path, config, quiet, None, known, group)

    return train


def open_results(
    config: RunConfig,
    path: Path,
    parts: Parts,
    multirun: str | None,
    quiet: bool,
    begun: Begun | None = None,
    job: Job | None = None,
    seeds_together: int = 1,
) -> Results:
    """Return results in a new folder that holds the config, or in the folder of a run that was begun before."""
    facts = Facts(
        benchmark=config.benchmark.name,
        scenario=config.benchmark.scenario,
        data=config.data.name,
        data_verified=is_verified(config.data),
        strategy=config.strategy.name,
        model=config.model.name,
        alpha=config.model.alpha,
        **config.sparsity.facts(),
        optimizer=config.optimizer.name,
        seed=config.seed,
        task_names=parts.task_names,
        device=str(parts.learner.device),
        ranks=place().ranks,
        seeds_together=seeds_together,
        job=job.number if job else None,
    )
    if place().is_first:
        folder, sinks = RunFolder(path) if begun is None else RunFolder.reopen(path), config.logger
    else:
        folder, sinks = UnwrittenFolder(path), {}
    folder.write_text("config.yaml", repeatable_yaml(config))
    shown = {key: value for key, value in shareable(config).items() if key not in ("logger", "run_dir")}
    if any(sink.enabled for sink in config.logger.values()):
        shown["group"] = group_name(config)
    progress = config.progress and not quiet
    results = Results(folder, facts, sinks=sinks, config=shown, multirun=multirun, progress=progress, job=job)
    if begun is not None:
        results.begun_before(begun.record)
    return results


def _hide_places(config: RunConfig, path: Path) -> None:
    """Keep the user's own places out of what a run writes about itself: an error may name any of them."""
    hide(path, "<run folder>")
    hide(config.data.root, "<data>")
    hide(config.references_dir, "<references>")
    for name, sink in config.logger.items():
        hide(getattr(sink, "dir", None), f"<{name}>")
