"""The command `cl-powerprop`. Heavy imports happen only inside the subcommand that needs them."""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence

from cl_powerprop import __version__, commands
from cl_powerprop.errors import ConfigurationError, DivergedError, RankError, StorageError, UserError
from cl_powerprop.interrupts import Interrupted, listening
from cl_powerprop.output import discard_output
from cl_powerprop.process import FAULT, USAGE_ERROR, complain, leave_wandb
from cl_powerprop.torchrun import voice


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake is one line on stderr and exit code 2, a fault while running exit code 1.

    A signal ends it with 128 plus the signal's number, as shells have it: 143 for SIGTERM. One that comes when all is
    done changes nothing.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    voice.hush()
    logging.basicConfig(format="cl-powerprop: %(message)s")
    code = FAULT
    try:
        with listening(ends=arguments is None):
            code = _dispatch(words)
    except UserError as error:
        code = complain(str(error), USAGE_ERROR)
    except (StorageError, DivergedError, RankError) as error:
        code = complain(str(error), FAULT)
    except (Interrupted, KeyboardInterrupt) as error:
        voice.leave_to_others()
        logging.disable(logging.INFO)  # if the import of torch was cut off, it would tell of its caches at the end
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        code = complain("; ".join([str(stop), *getattr(error, "__notes__", ())]), stop.exit_code)
    except BrokenPipeError:  # the reader of our output left, as in `cl-powerprop list | head -1`
        discard_output()
        code = 0
    finally:
        leave_wandb(code)
    sys.exit(code)


def _dispatch(words: list[str]) -> int:
    if words[:3] == ["completion", "query", "--"]:  # as a shell asks
        return _complete(words[3:])
    modules, words = _leading_imports(words)
    if modules:
        from cl_powerprop.registry import import_modules

        import_modules(modules)
    if words[:1] == ["run"]:  # Hydra reads what follows
        from cl_powerprop.hydra_run import run_command

        return run_command(words[1:])
    parsers = _parsers()
    if words[:1] in (["tune"], ["suite"]):  # overrides may stand between their options
        options = parsers[words[0]].parse_intermixed_args(_with_objective(words[1:]))
    else:
        options = parsers[""].parse_args(words)
    return int(options.call(options))


def _with_objective(words: Sequence[str]) -> list[str]:
    """Return the words of a command with an objective that begins with `-` bound to its option: it is no option."""
    found: list[str] = []
    for word in words:
        if found[-1:] == ["--objective"]:
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of the command under "", and that of each subcommand under its name."""
    parser = argparse.ArgumentParser(
        prog="cl-powerprop",
        description="Continual-learning benchmarks with Powerpropagation, PackNet and EfficientPackNet.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    help_of_import = "before any command: a module of yours that registers strategies, sequences and the like"
    parser.add_argument("--import", action="append", metavar="MODULE", help=help_of_import)
    subcommands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    subcommands.add_parser("run", help="learn a task sequence and write a run folder (see cl-powerprop run --help)")
    resume = subcommands.add_parser("resume", help="go on with runs that were cut off, each from its last checkpoint")
    resume.set_defaults(call=commands.resume)
    resume.add_argument("runs", nargs="+", metavar="RUN_OR_DIR", help="run folders, or folders that hold them")
    resume.add_argument("--root", metavar="DIR", help="folder of the data, if it was given as an absolute data.root")
    status = subcommands.add_parser("status", help="how far each run of a folder is: a line a run, and a summary")
    status.set_defaults(call=commands.status)
    status.add_argument("folder", metavar="DIR", help="folder of a multirun, or any that holds runs")
    status.add_argument(
        "--watch", action="store_true", help="show it anew every 2 seconds, until nothing runs any more"
    )
    repeat = subcommands.add_parser("repeat", help="run the config of a run folder again, in a new folder")
    repeat.set_defaults(call=commands.repeat)
    repeat.add_argument("run", metavar="RUN", help="run folder, also somebody else's: nothing of it is executed")
    changes = "that are to differ, as in seed=3 train.epochs=1 data.root=DIR run_dir=DIR"
    repeat.add_argument("options", nargs="*", metavar="OPTION=VALUE", help=changes)
    tune = subcommands.add_parser("tune", help="search for the settings that reach most on validation data")
    tune.set_defaults(call=commands.tune)
    ranges = "as run takes them; a range is interval(a,b), tag(log,interval(a,b)), range(a,b) or choice(a,b,c)"
    tune.add_argument("overrides", nargs="*", metavar="OPTION=VALUE_OR_RANGE", help=ranges)
    tune.add_argument("--trials", type=int, required=True, metavar="N", help="how many, those of earlier calls counted")
    objective = "metrics without test data, as in validation_accuracy,-capacity_used (default: validation_accuracy)"
    tune.add_argument("--objective", default="validation_accuracy", metavar="METRICS", help=objective)
    tune.add_argument("--jobs", type=int, metavar="N", help="trials at a time (default: as many as a multirun has)")
    tune.add_argument("--no-pruning", action="store_true", help="let every trial learn all tasks")
    again = "run the trials that failed before once more"
    tune.add_argument("--retry-failed", action="store_true", help=again)
    suite = subcommands.add_parser("suite", help="tune, run and compare many methods under one protocol")
    suite.set_defaults(call=commands.suite)
    suite.add_argument("name", metavar="NAME", help="as in league/permuted_10 (see cl-powerprop list suite), or a file")
    for_all = "for all runs alike, as data.root=DIR; hydra/launcher=slurm for where they run"
    suite.add_argument("overrides", nargs="*", metavar="OPTION=VALUE", help=for_all)
    suite.add_argument("--quick", action="store_true", help="as small as it can be, to see that all of it works")
    suite.add_argument("--methods", metavar="NAMES", help="only these, as in naive,packnet,epn")
    suite.add_argument("--out", metavar="DIR", help="folder of all that it makes (default: runs/suites/NAME)")
    goes_on = "go on where the suite was cut off, as the same command does in any case"
    suite.add_argument("--resume", action="store_true", help=goes_on)
    at_a_time = "trials at a time (default: as many as a multirun has)"
    suite.add_argument("--jobs", type=int, metavar="N", help=at_a_time)
    one_process = "train the reported seeds of a method in one process, as is fast on a GPU"
    suite.add_argument("--together", action="store_true", help=one_process)
    suite.add_argument("--retry-failed", action="store_true", help="run trials that failed before once more")
    compare = subcommands.add_parser(
        "compare",
        help="tables, forgetting curves and an HTML report over runs",
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("-h", "--help", action=commands.CompareHelp, nargs=0, help="show this help and exit")
    compare.set_defaults(call=commands.compare)
    compare.add_argument("runs", nargs="+", metavar="RUN_OR_DIR", help="run folders, or folders that hold them")
    compare.add_argument("--out", default="comparison", metavar="DIR", help="folder to write (default: comparison)")
    compare.add_argument("--by", metavar="COLUMNS", help="group by these, as in strategy,alpha,lr; see below")
    compare.add_argument("--metric", metavar="METRICS", help="report these, as in forgetting,capacity_used; see below")
    compare.add_argument(
        "--baseline", metavar="GROUP", help="compare each other group with this one only; a label, quoted"
    )
    compare.add_argument("--allow-mixed", action="store_true", help="compare different benchmarks, data or tasks too")
    formats = "of the figures' files: png, svg, pdf (default: png,svg)"
    compare.add_argument("--format", default="png,svg", metavar="FORMATS", help=formats)
    export = subcommands.add_parser("export", help="write the network of one task alone, small and plain")
    export.set_defaults(call=commands.export)
    export.add_argument("run", metavar="RUN", help="run folder")
    export.add_argument("--to", required=True, metavar="FILE", help="file to write: .safetensors, or .onnx")
    export.add_argument("--task", type=int, metavar="K", help="which task, from 0; not needed if there is only one")
    export.add_argument("--root", metavar="DIR", help="folder of the data, if it was given as an absolute data.root")
    export.add_argument("--threads", type=int, default=1, metavar="N", help="with which to measure times (default: 1)")
    sync = subcommands.add_parser("sync", help="upload W&B runs that were made offline, or cut off")
    sync.set_defaults(call=commands.sync)
    sync.add_argument("folder", metavar="DIR", help="folder with W&B's files somewhere in it, as in runs")
    sync.add_argument("--project", help="upload to this project instead of the one each run was made for")
    sync.add_argument("--entity", help="likewise: user or team")
    sync.add_argument("--timeout", type=float, default=3600, metavar="S", help="seconds for one run (default: 3600)")
    sync.add_argument("--dry-run", action="store_true", help="say what would be uploaded")
    pull = subcommands.add_parser("pull", help="fetch W&B runs as run folders, for compare")
    pull.set_defaults(call=commands.pull)
    pull.add_argument("project", metavar="ENTITY/PROJECT")
    pull.add_argument("--out", default="pulled", metavar="DIR", help="folder for the run folders (default: pulled)")
    dashboard = subcommands.add_parser("dashboard", help="make a W&B workspace with the panels that matter here")
    dashboard.set_defaults(call=commands.dashboard)
    project = os.environ.get("WANDB_PROJECT") or "cl-powerprop"
    dashboard.add_argument("--project", default=project, help="default: $WANDB_PROJECT, else cl-powerprop")
    entity = os.environ.get("WANDB_ENTITY") or None
    dashboard.add_argument("--entity", default=entity, help="user or team (default: $WANDB_ENTITY, else yours)")
    dashboard.add_argument("--tasks", type=int, default=10, metavar="N", help="forgetting curves to show (default: 10)")
    dashboard.add_argument("--dry-run", action="store_true", help="print what would be made, as JSON, without network")
    listing = subcommands.add_parser("list", help="what there is to choose: benchmarks, data, models, strategies, ...")
    listing.set_defaults(call=commands.list_choices)
    listing.add_argument("group", nargs="?", help="one group, as in strategy; all by default")
    data = subcommands.add_parser("data", help="where each data set is; fetch it; check it")
    data.set_defaults(call=commands.data)
    data.add_argument("action", choices=["status", "download", "verify"])
    data.add_argument("name", nargs="?", help="one data set; all by default")
    data.add_argument("--root", help="folder of the data (default: $CL_POWERPROP_DATA, else ~/.cache/cl-powerprop)")
    shells = subcommands.add_parser("completion", help='tab completion: eval "$(cl-powerprop completion bash)"')
    shells.set_defaults(call=commands.completion)
    shells.add_argument("shell", help="bash, zsh or fish; for fish: cl-powerprop completion fish | source")
    return {"": parser, **subcommands.choices}


def _complete(words: Sequence[str]) -> int:
    """Print what the last of the words can become, one a line. Nobody reads an error while a word is typed."""
    from cl_powerprop.completion import candidates

    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        for candidate in candidates(words or [""], _parsers()):  # an empty line would be one, and keep off files
            print(candidate)
    return 0


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
        if named.endswith(".py") or "/" in named:
            raise ConfigurationError(f"--import {named}: give the module's name, as in my_package.my_module")
        modules.append(named)
        words = words[1:] if "=" in words[0] else words[2:]
    if any(word == "--import" or word.startswith("--import=") for word in words):
        raise ConfigurationError("--import comes before the command, as in cl-powerprop --import my_module run")
    return modules, words


if __name__ == "__main__":
    main()
