"""Launchers without training: what they return, what they are given, and what they refuse in one line."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode

from cl_powerprop import hydra_run
from cl_powerprop.config_files import read_text_as_text
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.failures import Failures
from cl_powerprop.hydra_guard import LAUNCHERS
from cl_powerprop.launching.job_list import STUDY, read_jobs
from cl_powerprop.launching.launcher import ENGINES, JobLauncher

from ..docs.documents import ROOT, read
from . import stubs

assert hydra_run  # registers what configs look up

RAY, SLURM = "hydra/launcher=ray", "hydra/launcher=slurm"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    before = HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    read_text_as_text()
    with initialize_config_module("cl_powerprop.conf", version_base="1.3"):
        yield
    HydraConfig.instance().cfg = before


def launcher(name: str, sweep: Path, **settings: Any) -> JobLauncher:
    loader: Any = GlobalHydra.instance().config_loader()
    words = ["seed=0,1", f"run_dir={sweep}", f"hydra/launcher={name}"]
    config = loader.load_configuration("run", words, RunMode.MULTIRUN)
    failures = Failures(sweep.parent / "failures")
    failures.folder.mkdir(exist_ok=True)
    chosen = {key: value for key, value in config.hydra.launcher.items() if key != "_target_"}
    made = JobLauncher(failures, ENGINES[name], **(chosen | settings))
    made.setup(hydra_context=HydraContext(loader, Callbacks(None)), task_function=stubs.job, config=config)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("processes", {"n_jobs": 2}),
        ("slurm", {"cluster": "local", "runs_per_job": 3}),
        ("ray", {"init": {"num_cpus": 2}}),
    ],
)
def test_what_jobs_return(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    (sweep / "1").mkdir(parents=True)
    made = launcher(name, sweep, **settings)
    seeds = (3, 5, 13)
    returned = made.launch([[f"seed={seed}", f"run_dir={sweep}"] for seed in seeds], 0)
    assert [each.return_value for each in returned] == [3.0, 5.0, None]
    listed = read_jobs(sweep)
    assert [listed[number].state for number in range(3)] == ["complete", "complete", "failed"]
    assert listed[2].message == "of its own"
    (failure,) = made.failures.told()
    assert failure.message == "job 2: epn, seed 13: of its own"
    assert (failure.code, "ValueError: of its own" in failure.trace) == (1, True)
    # A job that is complete is not run again; it returns what it has reached.
    record = {"status": "complete", "metrics": {"validation_accuracy": 0.75}}
    (sweep / "1" / "run.json").write_text(json.dumps(record))
    again = launcher(name, sweep, **settings).launch([["seed=5", f"run_dir={sweep}"]], 0)
    assert [each.return_value for each in again] == [0.75]


def test_a_folder_of_configs_may_choose_each_launcher() -> None:
    assert set(ENGINES) < set(LAUNCHERS)
    assert len({LAUNCHERS[name] for name in ENGINES}) == len(ENGINES)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("ray", {"num_gpus": 1.5}, "num_gpus must be whole, or less than 1"),
        ("ray", {"num_cpus": float("nan")}, "num_cpus must be a number of at least 0"),
        ("ray", {"memory_gb": True}, "memory_gb must be a number"),
        ("ray", {"address": "ray://head:10001"}, "must be HOST:PORT of a Ray cluster, auto or null"),
        ("ray", {"address": "head:0"}, "must be HOST:PORT"),
        ("ray", {"address": "auto", "object_store_memory": 10**8}, "object_store_memory must be null with"),
        ("ray", {"object_store_memory": 5}, "object_store_memory must be a whole number of at least 80000000"),
        ("ray", {"init": {"address": "auto"}}, "init.address is given as hydra.launcher.address"),
        ("ray", {"only_failed": "maybe"}, "only_failed must be true or false, not 'maybe'"),
        ("slurm", {"cluster": "local", "folder": "/dev/null/%j"}, "folder=/dev/null/%j cannot be made"),
        ("slurm", {"cluster": "local", "folder": "50%a/%j"}, "must have no % but for %j, not '50%a/%j'"),
        ("ray", {"resources": {"a100": "x"}}, "resources.a100 must be a number of at least 0, not 'x'"),
        ("ray", {"resources": [1]}, "resources must have names and values"),
        ("ray", {"n_jobs": 3}, "unknown option 'hydra.launcher.n_jobs'; .*num_cpus"),
        ("slurm", {"cluster": "lsf"}, "hydra.launcher.cluster must be one of slurm, local, not 'lsf'"),
        ("slurm", {"timeout_min": 1}, "signal_delay_s=120 must be less than the 60 seconds"),
        ("slurm", {"timeout_min": "1:00"}, "timeout_min must be a whole number"),
        ("slurm", {"partition": "a\n#SBATCH --x"}, "partition must be a text of one line"),
        ("slurm", {"mem_gb": -1}, "mem_gb must be a number"),
        ("slurm", {"setup": "module load cuda"}, "setup must be a list"),
        ("slurm", {"additional_parameters": 3}, "additional_parameters must be options of sbatch"),
        ("processes", {"n_jobs": 0}, "n_jobs must be a whole number of at least 1"),
        ("processes", {"n_job": 2}, "did you mean 'n_jobs'"),
    ],
)
def test_settings_that_cannot_work(name: str, settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        launcher(name, tmp_path / "sweep", **settings)
    assert "\n" not in str(raised.value)


def test_jobs_of_a_multirun_are_not_put_among_trials(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / STUDY).touch()
    with pytest.raises(ConfigurationError, match="holds a study of cl-powerprop tune; choose another run_dir"):
        launcher("processes", tmp_path / "study")
    assert [path.name for path in (tmp_path / "study").iterdir()] == [STUDY]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (SLURM,),
            "needs a machine with SLURM's sbatch and srun; hydra.launcher.cluster=local runs the jobs on this one",
        ),
        (("hydra.launcher.partition=gpu",), "of this launcher; it is one of hydra/launcher=slurm"),
        ((RAY, "hydra.launcher.num_gpus=64"), "no room for a run as hydra.launcher wants it: CPU 1, GPU 64"),
        (("hydra/launcher=lsf",), "unknown hydra/launcher 'lsf'; choose from: processes, ray, slurm, basic"),
        ((RAY, "hydra.launcher.init.num_cpus=2"), "to add it, write +hydra.launcher.init.num_cpus=VALUE"),
        (
            ("hydra/launcher=basic", "--retry-failed"),
            "--retry-failed is for hydra/launcher=processes|slurm|ray, not basic",
        ),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "cl_powerprop", "run", "-m", "seed=0,1", "run_dir=sweep", *words]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not list(tmp_path.glob("sweep/[0-9]*")), "no run has begun"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_an_extra_that_is_not_installed(name: str, module: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules['{module}'] = None\n"
        "from cl_powerprop.cli import main\n"
        f"main(['run', '-m', 'seed=0,1', 'run_dir=sweep', 'hydra/launcher={name}'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"pip install 'cl-powerprop[{name}]'")
    assert not list(tmp_path.iterdir())


def test_the_document_names_options_that_there_are() -> None:
    named = set(re.findall(r"hydra\.launcher\.(\w+)", read("docs/cluster.md")))
    for table, name in zip(read("docs/cluster.md").split("| `hydra.launcher.` |")[1:], ("slurm", "ray"), strict=True):
        rows = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines()[2:]]
        options = {option for row in rows for option in re.findall(r"`(\w+)`", row)}
        assert len(options) > 5
        assert options <= {field.name for field in fields(ENGINES[name])}
        named |= options
    assert named <= {field.name for kind in ENGINES.values() for field in fields(kind)}


def test_engines_are_imported_when_they_are_used() -> None:
    code = "import sys, cl_powerprop.hydra_run; sys.exit(bool({'ray', 'submitit', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
