"""The command `cl-powerprop`. Heavy imports happen only inside the subcommand that needs them."""

import argparse
import functools
import json
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cl_powerprop import __version__
from cl_powerprop.errors import ConfigurationError, DivergedError, UserError

USAGE_ERROR, FAULT, INTERRUPTED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake is one line on stderr and exit code 2, a fault while running exit code 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="cl-powerprop: %(message)s")
    code = FAULT
    try:
        code = _dispatch(words)
    except UserError as error:
        code = _complain(str(error), USAGE_ERROR)
    except KeyboardInterrupt:
        code = _complain("interrupted; what was finished is kept", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output left, as in `cl-powerprop list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    finally:
        _leave_wandb(code)
    sys.exit(code)


def _leave_wandb(code: int) -> None:
    """See that W&B does not keep this process from ending; Avalanche imports it in any case."""
    if "wandb" in sys.modules:
        from cl_powerprop.tracking.wandb_service import end_service

        end_service(code)


def _complain(message: str, code: int) -> int:
    print(f"cl-powerprop: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    modules, words = _leading_imports(words)
    if modules:
        from cl_powerprop.registry import import_modules

        import_modules(modules)
    if words[:1] == ["run"]:  # Hydra reads what follows
        return _run(words[1:])
    parser = argparse.ArgumentParser(
        prog="cl-powerprop",
        description="Continual-learning benchmarks with Powerpropagation, PackNet and EfficientPackNet.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    help_of_import = "before any command: a module of yours that registers strategies, sequences and the like"
    parser.add_argument("--import", action="append", metavar="MODULE", help=help_of_import)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("run", help="learn a task sequence and write a run folder (see cl-powerprop run --help)")
    resume = commands.add_parser("resume", help="go on with runs that were cut off, from their last finished task")
    resume.add_argument("runs", nargs="+", metavar="RUN_OR_DIR", help="run folders, or folders that hold them")
    resume.add_argument("--root", metavar="DIR", help="folder of the data, if it was given as an absolute data.root")
    resume.add_argument("--force", action="store_true", help="even if the run may still be going on, elsewhere")
    compare = commands.add_parser("compare", help="tables, forgetting curves and an HTML report over runs")
    compare.add_argument("runs", nargs="+", metavar="RUN_OR_DIR", help="run folders, or folders that hold them")
    compare.add_argument("--out", default="comparison", metavar="DIR", help="folder to write (default: comparison)")
    compare.add_argument("--by", metavar="COLUMNS", help="group by these, as in strategy,alpha,optimizer.lr")
    compare.add_argument("--metric", metavar="METRICS", help="report these, as in average_accuracy,capacity_used")
    compare.add_argument("--baseline", metavar="GROUP", help="compare each other group with this one only")
    compare.add_argument("--allow-mixed", action="store_true", help="compare different benchmarks, data or tasks too")
    sync = commands.add_parser("sync", help="upload W&B runs that were made offline, or cut off")
    sync.add_argument("folder", metavar="DIR", help="folder with W&B's files somewhere in it, as in runs")
    sync.add_argument("--project", help="upload to this project instead of the one each run was made for")
    sync.add_argument("--entity", help="likewise: user or team")
    sync.add_argument("--timeout", type=float, default=3600, metavar="S", help="seconds for one run (default: 3600)")
    sync.add_argument("--dry-run", action="store_true", help="say what would be uploaded")
    pull = commands.add_parser("pull", help="fetch W&B runs as run folders, for compare")
    pull.add_argument("project", metavar="ENTITY/PROJECT")
    pull.add_argument("--out", default="pulled", metavar="DIR", help="folder for the run folders (default: pulled)")
    dashboard = commands.add_parser("dashboard", help="make a W&B workspace with the panels that matter here")
    dashboard.add_argument("--project", default="cl-powerprop", help="default: cl-powerprop")
    dashboard.add_argument("--entity", help="user or team (default: yours)")
    dashboard.add_argument("--tasks", type=int, default=10, metavar="N", help="forgetting curves to show (default: 10)")
    dashboard.add_argument("--dry-run", action="store_true", help="print what would be made, as JSON, without network")
    commands.add_parser("list", help="what there is to choose: benchmarks, data, models, strategies, ...")
    data = commands.add_parser("data", help="where each data set is; fetch it; check it")
    data.add_argument("action", choices=["status", "download", "verify"])
    data.add_argument("name", nargs="?", help="one data set; all by default")
    data.add_argument("--root", help="folder of the data (default: $CL_POWERPROP_DATA, else ~/.cache/cl-powerprop)")
    options = parser.parse_args(words)
    subcommands = {"list": _list, "data": _data, "compare": _compare, "resume": _resume}
    subcommands |= {"sync": _sync, "pull": _pull, "dashboard": _dashboard}
    return subcommands[options.command](options)


def _leading_imports(words: list[str]) -> tuple[list[str], list[str]]:
    """Divide a command into the modules that it is to import first, and the rest.

    Raises:
        ConfigurationError: for `--import` without a module.
    """
    modules: list[str] = []
    while words and (words[0] == "--import" or words[0].startswith("--import=")):
        named = words[0].partition("=")[2] if "=" in words[0] else (words[1] if len(words) > 1 else "")
        if not named or named.startswith("-"):
            raise ConfigurationError("--import needs the name of a module, as in --import my_package.my_module")
        modules.append(named)
        words = words[1:] if "=" in words[0] else words[2:]
    return modules, words


def _compare(options: argparse.Namespace) -> int:
    from cl_powerprop.analysis.compare import compare

    by, metrics = (value.split(",") if value else None for value in (options.by, options.metric))
    compare(
        options.runs,
        Path(options.out),
        by=by,
        metrics=metrics,
        baseline=options.baseline,
        allow_mixed=options.allow_mixed,
    )
    return 0


def _resume(options: argparse.Namespace) -> int:
    from cl_powerprop.resume import resume

    warnings.filterwarnings("ignore", "no QP solver found")  # as for a run
    return FAULT if resume(options.runs, options.root, options.force) else 0


def _sync(options: argparse.Namespace) -> int:
    from cl_powerprop.tracking.wandb_sync import sync

    synced = sync(Path(options.folder), options.project, options.entity, options.dry_run, options.timeout)
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
        _complain(f"{file.parent} was not uploaded: {reason}", FAULT)
    return FAULT if synced.failed else 0


def _pull(options: argparse.Namespace) -> int:
    from cl_powerprop.tracking.wandb_pull import pull

    pulled = pull(options.project, Path(options.out))
    for problem in pulled.problems:
        print(f"warning: {problem}", file=sys.stderr)
    print(f"{len(pulled.written)} run folders written to {options.out}, {len(pulled.present)} were there before")
    if pulled.written or pulled.present:
        print(f"compare them by: cl-powerprop compare {options.out}")
        return 0
    return FAULT


def _dashboard(options: argparse.Namespace) -> int:
    from cl_powerprop.tracking import wandb_dashboard

    if options.dry_run:
        made = wandb_dashboard.workspace(options.project, options.entity or "ENTITY", options.tasks)
        print(wandb_dashboard.specification(made))
    else:
        print(f"dashboard: {wandb_dashboard.create(options.project, options.entity, options.tasks)}")
    return 0


def _list(_: argparse.Namespace) -> int:
    from cl_powerprop.catalogue import catalogue

    for group, choices in catalogue().items():
        print(f"{group}:")
        width = max(map(len, choices))
        for name, description in choices.items():
            print(f"  {name:{width}}  {description}")
    return 0


def _data(options: argparse.Namespace) -> int:
    from cl_powerprop.data.dataset import data_root
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
                print(f"{dataset.name}: whole, {counts}")
            else:
                with _Bars(bytes=True) as bars:
                    dataset.download(root, bars.update)
                print(f"{dataset.name}: {dataset.status(root)}")
        except UserError as error:
            failed = True
            _complain(str(error), USAGE_ERROR)
    return USAGE_ERROR if failed else 0


class _Bars:
    """A progress bar for each file that is fetched (in bytes) or decoded (in pictures)."""

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


def _run(words: list[str]) -> int:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from cl_powerprop.catalogue import explain_composition_error, offer_parts
    from cl_powerprop.registry import imported_modules

    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors through to us
    before, sys.argv = sys.argv, ["cl-powerprop run", *offer_parts(words)]
    with tempfile.TemporaryDirectory(prefix="cl-powerprop-") as folder:
        failures = Path(folder)
        job = functools.partial(_job, failures=failures, command=os.getpid(), modules=imported_modules())
        functools.update_wrapper(job, _job)
        try:
            hydra.main(version_base="1.3", config_path="pkg://cl_powerprop.conf", config_name="run")(job)()
        except (HydraException, OmegaConfBaseException) as error:
            return _complain(explain_composition_error(error), USAGE_ERROR)
        except OSError as error:  # a job's own are among the failures; this is Hydra's, which makes the run folder
            return _complain(f"the run folder cannot be made: {error.filename}: {error.strerror}", USAGE_ERROR)
        finally:
            sys.argv = before
        return _report(failures)


def _report(failures: Path) -> int:
    """Print what the jobs failed of, each reason once, and return the exit code."""
    code, seen = 0, []
    for path in sorted(failures.iterdir()):
        failure = json.loads(path.read_text(encoding="utf-8"))
        if failure in seen:
            continue
        seen.append(failure)
        print(failure["trace"], end="", file=sys.stderr)
        code = max(code, _complain(failure["message"], failure["code"]), key=[0, USAGE_ERROR, FAULT].index)
    return code


def _job(config: Any, failures: Path, command: int, modules: Sequence[str]) -> None:
    """Run one Hydra job; a failure ends in a file, for the job may run in another process and the others go on.

    Args:
        config: of the job, composed.
        failures: folder for what failed.
        command: the process of the command.
        modules: what the command was told to import.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from cl_powerprop.registry import import_modules

    try:
        import_modules(modules)
        # Several live displays on one terminal would overwrite each other.
        _run_job(config, quiet=os.getpid() != command)
    except Exception as error:
        if not failures.exists():  # a launcher took the job to another machine: the error itself has to travel
            raise
        foreseen = isinstance(error, UserError | DivergedError)
        failure = {
            "message": str(error) or type(error).__name__,
            "code": USAGE_ERROR if isinstance(error, UserError) else FAULT,
            "trace": "" if foreseen else "".join(traceback.format_exception(error)),
        }
        hydra_config = HydraConfig.get()
        number = hydra_config.job.num if hydra_config.mode == RunMode.MULTIRUN else 0
        (failures / f"{number:06}.json").write_text(json.dumps(failure), encoding="utf-8")
    finally:
        if os.getpid() != command:  # nobody else will
            _leave_wandb(FAULT)  # of runs that were not finished


def _run_job(config: Any, quiet: bool) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from cl_powerprop.config import parse

    # Avalanche brings a package that wants a solver none of our strategies needs.
    warnings.filterwarnings("ignore", "no QP solver found")

    hydra_config = HydraConfig.get()
    path = Path(hydra_config.runtime.output_dir)
    parsed = parse(config)
    for sink in parsed.logger.values():
        sink.prepare()
    if parsed.pruning is not None:
        from cl_powerprop.pruning import run_pruning

        run_pruning(parsed, path, quiet=quiet)
        return
    from cl_powerprop.experiment import run

    multirun = _name(Path(hydra_config.sweep.dir)) if hydra_config.mode == RunMode.MULTIRUN else None
    result = run(parsed, path, quiet=quiet, multirun=multirun)
    if hydra_config.mode == RunMode.RUN:
        from cl_powerprop.analysis.summary import print_runs

        print_runs([result.path])


def _name(sweep: Path) -> str:
    """Name a multirun by its folder; by default that is a date, and in it a time."""
    return sweep.name if sweep.is_absolute() else "-".join(sweep.parts[-2:])


if __name__ == "__main__":
    main()
