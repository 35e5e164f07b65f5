"""`cl-powerprop run`: Hydra composes the config and calls a job for it, or a job for each combination of a multirun."""

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cl_powerprop.completion_scripts import hydra_script
from cl_powerprop.conf_options import part_options, run_options, with_comments
from cl_powerprop.config import GROUPS, RunConfig, parse
from cl_powerprop.config_files import read_text_as_text
from cl_powerprop.data.dataset import data_root
from cl_powerprop.errors import ConfigurationError, SeedError
from cl_powerprop.explanations import explain_composition_error
from cl_powerprop.failures import Failure, Failures
from cl_powerprop.hydra_files import write_once
from cl_powerprop.hydra_guard import guard, refuse_code
from cl_powerprop.interrupts import SIGNALS, Interrupted, saving, telling
from cl_powerprop.launching.launcher import ENGINES, register
from cl_powerprop.launching.objective import validation_accuracy
from cl_powerprop.overrides import prepare
from cl_powerprop.process import FAULT, USAGE_ERROR, complain, leave_wandb
from cl_powerprop.record import Job
from cl_powerprop.registry import find_plugins, import_modules, imported_modules
from cl_powerprop.sweep import job_of
from cl_powerprop.torchrun import place
from cl_powerprop.workers import Workers

_BY_WEIGHT = [0, USAGE_ERROR, *(Interrupted(number).exit_code for number in SIGNALS), FAULT]

write_once()  # here, so that the processes of jobs do it too, which import this module
guard()


def run_command(words: list[str]) -> int:
    """Let Hydra compose the config of one run, or of each job of a multirun, and run it; return the exit code."""
    words = _flag_first(_retrying(words))
    _refuse_whole_sections(words)
    refuse_code(words)
    if place().ranks > 1 and _is_multirun(words):
        raise ConfigurationError("torchrun starts the processes of one run; call it once for each run, without -m")
    if any(word in ("--shell-completion", "-sc") for word in words):
        print(hydra_script(words), end="")
        return 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors through to us
    before, sys.argv = sys.argv, ["cl-powerprop run", *prepare(words)]
    read_text_as_text()
    commented = functools.partial(_commented_config, resolve="--resolve" in words)
    OmegaConf.register_new_resolver("commented_config", commented, replace=True)
    with tempfile.TemporaryDirectory(prefix="cl-powerprop-") as folder:
        failures = Failures(Path(folder))
        if not place().is_first:  # Hydra makes a folder for each process; the run folder is the first one's
            OmegaConf.register_new_resolver("expanduser", lambda _: str(failures.folder / "run"), replace=True)
        workers = Workers(failures.folder, os.getpid())
        job = functools.partial(_job, workers=workers, modules=imported_modules(), words=sys.argv[1:])
        functools.update_wrapper(job, _job)
        register(failures)
        try:
            with telling(workers.tell):
                hydra.main(version_base="1.3", config_path="pkg://cl_powerprop.conf", config_name="run")(job)()
        except Interrupted as stop:
            _say_how(stop)
            raise
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # a job's own are among the failures
            return complain(explain_composition_error(error), USAGE_ERROR)
        except OSError as error:  # of Hydra, which makes the run folder
            return complain(f"the run folder cannot be made: {error.filename}: {error.strerror}", USAGE_ERROR)
        finally:
            sys.argv = before
        return _report(failures)


def _refuse_whole_sections(words: Sequence[str]) -> None:
    """Refuse a value for all of Hydra's launcher or sweeper, for which Hydra has no message of its own.

    Raises:
        ConfigurationError: naming how they are chosen.
    """
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key in ("hydra.launcher", "hydra.sweeper"):
            name = key.replace(".", "/")
            raise ConfigurationError(f"{word}: choose one by {name}=NAME, and its options by {key}.OPTION=VALUE")


def _flag_first(words: Sequence[str]) -> list[str]:
    """Return the words of a command with -m before the overrides, for Hydra takes no flag in their midst."""
    flags = [word for word in words if word in ("-m", "--multirun")]
    return [*flags[:1], *(word for word in words if word not in flags)]


def _is_multirun(words: Sequence[str]) -> bool:
    return any(word in ("-m", "--multirun", "hydra.mode=MULTIRUN") for word in words)


def _retrying(words: Sequence[str]) -> list[str]:
    """Return the words of a command with the option of the launcher that `--retry-failed` is short for."""
    left = [word for word in words if word != "--retry-failed"]
    if len(left) == len(words):
        return left
    if not _is_multirun(left):
        raise ConfigurationError(
            "--retry-failed is for the jobs of a multirun, with -m; a run alone is simply run again"
        )
    if not any(word.startswith(("run_dir=", "hydra.sweep.dir=")) for word in left):
        raise ConfigurationError("--retry-failed needs the multirun's folder: run_dir=DIR, as before")
    chosen = [name for word in left for key, _, name in [word.partition("=")] if key == "hydra/launcher"]
    if chosen and chosen[-1] not in ENGINES:
        raise ConfigurationError(f"--retry-failed is for hydra/launcher={'|'.join(ENGINES)}, not {chosen[-1]}")
    return [*left, "hydra.launcher.only_failed=true"]


def _commented_config(*, _root_: DictConfig, resolve: bool) -> str:
    """Return the config for `--help`: as YAML, with the comments that the files of `conf/` have beside each option."""
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    options = run_options()
    for group in GROUPS:
        if group in config:  # a config of an earlier version may lack it
            options |= part_options(group, config[group].name)
    for name in config.get("logger") or {}:
        options |= part_options("logger", name)
    text = with_comments(OmegaConf.to_yaml(config, resolve=resolve), options)
    return text.replace("$", "$$")  # Hydra substitutes once more


def _report(failures: Failures) -> int:
    """Print what the jobs failed of, each reason once, and return the exit code."""
    code = 0
    for failure in failures.told():
        print(failure.trace, end="", file=sys.stderr)
        code = max(code, complain(failure.message, failure.code), key=_BY_WEIGHT.index)
    return code


def _job(config: Any, workers: Workers, modules: Sequence[str], words: Sequence[str]) -> float | None:
    """Run one Hydra job; a failure ends in a file, for the job may run in another process and the others go on.

    Returns the validation accuracy, which sweepers that search can take as their objective; None if the job failed.

    Args:
        config: of the job, composed.
        workers: the processes of the jobs; what failed is written to their folder.
        modules: what the command was told to import.
        words: what follows `run` in the command.
    """
    is_own = not workers.are_elsewhere()
    try:
        with workers.at_work():
            find_plugins(warn=is_own)
            with contextlib.chdir(HydraConfig.get().runtime.cwd):  # where the modules may lie: hydra.job.chdir left it
                import_modules(modules)
            # Several live displays on one terminal would overwrite each other.
            return _run_job(config, words, live=is_own)
    except (Exception, Interrupted) as error:
        stops_all = is_own and isinstance(error, Interrupted)
        if stops_all or not workers.folder.exists():  # a launcher took the job to another machine: it has to travel
            raise
        if isinstance(error, Interrupted) and not workers.are_told():  # not the command was stopped, but this process
            raise
        if isinstance(error, Interrupted):
            _say_how(error)
        _write_failure(workers.folder, error)
        return None
    finally:
        if not is_own:  # nobody else will
            leave_wandb(FAULT)  # of runs that were not finished


def _say_how(stop: Interrupted) -> None:
    """Let an interrupt say how the command goes on, if it does not say more."""
    if not hasattr(stop, "__notes__"):
        stop.add_note(
            "the same command goes on if run_dir, or hydra.sweep.dir, names its folder; "
            "cl-powerprop resume goes on with what was begun"
        )


def _write_failure(folder: Path, error: BaseException) -> None:
    hydra_config = HydraConfig.get()
    is_job = hydra_config.mode == RunMode.MULTIRUN
    number = hydra_config.job.num if is_job else 0
    Failures(folder).add(number, Failure.of(error, f"job {number}" if is_job else ""))


def _run_job(config: Any, words: Sequence[str], live: bool) -> float | None:
    hydra_config = HydraConfig.get()
    path = Path(hydra_config.runtime.output_dir)
    subfolder = hydra_config.output_subdir
    if subfolder is not None and path.joinpath(subfolder).resolve() == path.resolve():
        raise ConfigurationError(
            f"hydra.output_subdir={subfolder!r} puts Hydra's files among the run's; name a folder, as in .hydra"
        )
    parsed = parse(config)
    if hydra_config.job.chdir:
        _anchor(parsed, Path(hydra_config.runtime.cwd))
    parsed.check()  # before torch is imported, which takes many times as long
    for sink in parsed.logger.values():
        sink.prepare()
    job = job_of(parsed, hydra_config, words, live)
    multirun = _name(Path(hydra_config.sweep.dir)) if hydra_config.mode == RunMode.MULTIRUN else None
    prints = hydra_config.mode == RunMode.RUN and place().is_first
    try:
        results = _run(parsed, path, multirun, job)
    except SeedError as error:
        if prints and error.complete:
            _print(error.complete)
        raise
    if prints:
        _print(results)
    return validation_accuracy([result.record for result in results])


def _run(config: RunConfig, path: Path, multirun: str | None, job: Job | None) -> Sequence[Any]:
    """Return the results of a run, or of one for each seed."""
    if config.seeds_together > 1:
        from cl_powerprop.seeds_together import run_together

        return run_together(config, path, multirun=multirun, job=job)
    from cl_powerprop.experiment import run

    return [run(config, path, multirun=multirun, job=job)]


def _print(results: Sequence[Any]) -> None:
    with saving():  # they are complete
        from cl_powerprop.analysis.summary import print_runs

        print_runs([result.path for result in results])


def _anchor(config: RunConfig, start: Path) -> None:
    """Let relative paths of a config begin where the command was called, though its job has another working folder."""
    config.data.root = str(start / data_root(config.data.root))
    config.references_dir = str(start / config.references_dir)
    for sink in config.logger.values():
        if hasattr(sink, "dir"):
            sink.dir = str(start / sink.dir)


def _name(sweep: Path) -> str:
    """Name a multirun by its folder; by default that is a date, and in it a time."""
    return sweep.name if sweep.is_absolute() else "-".join(sweep.parts[-2:])
