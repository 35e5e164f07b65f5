"""The subcommands but `run`: what each prints, and its exit code. Each imports what it needs when it is called."""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cl_powerprop.errors import UserError
from cl_powerprop.interrupts import saving
from cl_powerprop.process import FAULT, USAGE_ERROR, complain


def compare(options: argparse.Namespace) -> int:
    """Compare runs: tables, figures and a report."""
    from cl_powerprop.analysis.compare import compare as compare_runs

    by, metrics = map(_names, (options.by, options.metric))
    compare_runs(
        options.runs,
        Path(options.out),
        by=by,
        metrics=metrics,
        baseline=options.baseline,
        allow_mixed=options.allow_mixed,
        formats=_names(options.format) or [],
    )
    return 0


def _names(text: str | None) -> list[str] | None:
    """Return the names in a list that is separated by commas; None if it has none."""
    return [name.strip() for name in (text or "").split(",") if name.strip()] or None


class CompareHelp(argparse.Action):
    """Prints the help of `compare`, with the names of metrics and columns, which take a moment to find."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from cl_powerprop.analysis.choosing import describe_names

        parser.epilog = describe_names()
        parser.print_help()
        parser.exit()


def resume(options: argparse.Namespace) -> int:
    """Go on with runs that were cut off."""
    from cl_powerprop.resume import resume as resume_runs

    return FAULT if resume_runs(options.runs, options.root) else 0


def status(options: argparse.Namespace) -> int:
    """Say how far the runs of a folder are; exit with 0 if all are complete, 1 if some failed, 3 if some are left."""
    from cl_powerprop.status import show

    return show(Path(options.folder), watch=options.watch)


def repeat(options: argparse.Namespace) -> int:
    """Run the config of a run folder again."""
    from cl_powerprop.repeat import repeat as repeat_run
    from cl_powerprop.torchrun import place

    path = repeat_run(Path(options.run), options.options)
    if place().is_first:
        with saving():  # it is complete
            from cl_powerprop.analysis.summary import print_runs

            print_runs([path])
    return 0


def tune(options: argparse.Namespace) -> int:
    """Search for the best settings."""
    from cl_powerprop.tuning.tune import tune as tune_settings

    return tune_settings(
        options.overrides,
        options.trials,
        options.objective,
        jobs=options.jobs,
        prunes=not options.no_pruning,
        retries_failed=options.retry_failed,
    )


def suite(options: argparse.Namespace) -> int:
    """Tune, run and compare the methods of a suite."""
    from cl_powerprop.suites.suite import run_suite

    return run_suite(
        options.name,
        Path(options.out) if options.out else None,
        quick=options.quick,
        methods=_names(options.methods) or [],
        words=options.overrides,
        jobs=options.jobs,
        together=options.together,
        retries_failed=options.retry_failed,
    )


def export(options: argparse.Namespace) -> int:
    """Write the network of one task of a run, and print what it costs against the dense one."""
    from rich.console import Console

    from cl_powerprop.exporting.export import export as export_task
    from cl_powerprop.exporting.table import WIDTH, lines, table
    from cl_powerprop.output import say, say_table

    with Console(stderr=True).status("") as status:  # shown on a terminal only
        exported = export_task(
            options.run,
            options.to,
            task=options.task,
            root=options.root,
            threads=options.threads,
            progress=status.update,
        )
    say_table(table(exported), WIDTH)
    for line in lines(exported):
        say(line)
    return 0


def sync(options: argparse.Namespace) -> int:
    """Upload W&B runs that were made offline."""
    from cl_powerprop.tracking.wandb_sync import sync as sync_runs

    synced = sync_runs(Path(options.folder), options.project, options.entity, options.dry_run, options.timeout)
    if options.dry_run:
        for file in synced.uploaded:
            print(f"would upload {file.parent}")
    counts: dict[str, Collection[Path]] = {
        "to upload" if options.dry_run else "uploaded": synced.uploaded,
        "uploaded before": synced.uploaded_before,
        "still running, left out": synced.still_running,
        "failed": synced.failed,
    }
    print("W&B runs: " + ", ".join(f"{len(files)} {what}" for what, files in counts.items() if files))
    for file, reason in synced.failed.items():
        complain(f"{file.parent} was not uploaded: {reason}", FAULT)
    return FAULT if synced.failed else 0


def pull(options: argparse.Namespace) -> int:
    """Fetch W&B runs as run folders."""
    from cl_powerprop.shown import shell_word
    from cl_powerprop.tracking.wandb_pull import pull as pull_runs

    pulled = pull_runs(options.project, Path(options.out))
    for problem in pulled.problems:
        print(f"warning: {problem}", file=sys.stderr)
    print(f"{len(pulled.written)} run folders written to {options.out}, {len(pulled.present)} were there before")
    if pulled.written or pulled.present:
        print(f"compare them by: cl-powerprop compare -- {shell_word(options.out)}")
        return 0
    return FAULT


def dashboard(options: argparse.Namespace) -> int:
    """Make a W&B workspace."""
    from cl_powerprop.tracking import wandb_dashboard

    if options.dry_run:
        made = wandb_dashboard.workspace(options.project, options.entity or "ENTITY", options.tasks)
        print(wandb_dashboard.specification(made))
    else:
        print(f"dashboard: {wandb_dashboard.create(options.project, options.entity, options.tasks)}")
    return 0


def list_choices(options: argparse.Namespace) -> int:
    """Print what there is to choose."""
    from cl_powerprop.catalogue import catalogue

    for group, choices in catalogue(options.group).items():
        print(f"{group}:")
        width = max(map(len, choices))
        for name, description in choices.items():
            print(f"  {name:{width}}  {description}")
    return 0


def completion(options: argparse.Namespace) -> int:
    """Print the script of a shell."""
    from cl_powerprop.completion_scripts import script

    print(script(options.shell), end="")
    return 0


def data(options: argparse.Namespace) -> int:
    """Say where each data set is, fetch it, or check it."""
    from cl_powerprop.data.dataset import data_root, doubt
    from cl_powerprop.registry import find, parts

    root = data_root(options.root)
    chosen = [find("data", options.name)] if options.name else parts("data").values()
    datasets = [part.make() for part in chosen]
    failed = False
    for dataset in datasets:
        try:
            if options.action == "status":
                print(f"{dataset.name}: {dataset.status(root)}")
            elif options.action == "verify":
                with _Bars() as bars:
                    counts = dataset.verify(root, bars.update)
                told = doubt(dataset, root)
                print(f"{dataset.name}: {counts}; {told}" if told else f"{dataset.name}: whole, {counts}")
            else:
                with _Bars(bytes=True) as bars:
                    dataset.download(root, bars.update)
                print(f"{dataset.name}: {dataset.status(root)}")
        except UserError as error:
            failed = True
            complain(str(error), USAGE_ERROR)
    return USAGE_ERROR if failed else 0


class _Bars:
    """A progress bar for each file that is fetched (in bytes) or decoded (in images)."""

    def __init__(self, bytes: bool = False) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        amount = DownloadColumn() if bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars:
            self._progress.stop()

    def update(self, name: str, done: int, total: int) -> None:
        """Show how far the file is."""
        self._progress.start()  # does nothing if it has started
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._bars[name], completed=done, total=total)
