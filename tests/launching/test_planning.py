"""Which jobs are left, under which numbers; and that their configs are what Hydra composes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from cl_powerprop import hydra_run
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.failures import Failures
from cl_powerprop.launching import composing
from cl_powerprop.launching.job_list import NAME, ListedJob, add_jobs, read_jobs
from cl_powerprop.launching.launcher import JobLauncher
from cl_powerprop.launching.planning import PlannedJob, config_hash, plan
from cl_powerprop.launching.processes import ProcessEngine

assert hydra_run  # registers what configs look up


@pytest.fixture
def loader() -> Iterator[Any]:
    GlobalHydra.instance().clear()
    before = HydraConfig.instance().cfg
    with initialize_config_module("cl_powerprop.conf", version_base="1.3"):
        yield GlobalHydra.instance().config_loader()
    HydraConfig.instance().cfg = before


def composed(loader: Any, *jobs: Sequence[str]) -> list[DictConfig]:
    master = loader.load_configuration("run", ["seed=0,1"], RunMode.MULTIRUN)
    return [composing._load_sweep_config(loader, master, list(job)) for job in jobs]


JOBS = (
    ("seed=0", "optimizer.lr=0.1"),
    ("seed=7", "optimizer.lr=1e-3"),
    ("seed=1", "strategy=naive"),
    ("seed=2", "strategy=packnet"),
    ("seed=3", "strategy=naive", "model.hidden=[20,30]"),
    ("seed=4", "strategy=naive", "model.hidden=[5]"),
    ("seed=5", "++epn.gamma=0.9"),
    ("seed=6", "++epn.gamma=0.8"),
    ("seed=1", "strategy.gamma=0.8", "run_dir='a b/${seed}'"),
    ("seed=2", "strategy.gamma=0.7", "run_dir='c=d,e'"),
    ("seed=3", "train.clip_norm=null", "progress=false"),
    ("seed=4", "train.clip_norm=2", "progress=true"),
    ("seed=4", "hydra.launcher.n_jobs=3"),
    ("seed=4", "hydra.launcher.n_jobs=4"),
    ("experiment=quickstart/naive", "seed=3"),
    ("+train.new=1", "seed=3"),
    ("+train.new=2", "seed=4"),
)


def test_configs_are_those_that_hydra_composes(loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    master = loader.load_configuration("run", ["seed=0,1"], RunMode.MULTIRUN)
    calls = []
    usual = composing._compose_job
    monkeypatch.setattr(composing, "_compose_job", lambda *given: calls.append(given) or usual(*given))
    for job in JOBS:
        fast, slow = composing._load_sweep_config(loader, master, list(job)), usual(loader, master, list(job))
        assert OmegaConf.to_container(fast, resolve=False) == OmegaConf.to_container(slow, resolve=False), job
        assert [type(node) for node in fast._content.values()] == [type(node) for node in slow._content.values()]
        assert OmegaConf.is_struct(fast) == OmegaConf.is_struct(slow)
    assert len(calls) == len(JOBS) - 3, "three are made from others"


@pytest.mark.parametrize("word", ["optimizer.lrr=1", "strategy=no_such", "nothing=3"])
def test_a_wrong_option_is_refused_as_ever(loader: Any, word: str) -> None:
    composed(loader, ["seed=1", "optimizer.lr=1"])
    with pytest.raises(HydraException):
        composed(loader, ["seed=2", word])


def test_a_hash_is_that_of_what_is_measured(loader: Any) -> None:
    one, same, other, seed = composed(
        loader,
        ["optimizer.lr=1", "seed=1", "run_dir=a", "data.root=x"],
        ["optimizer.lr=1.0", "seed=1", "run_dir=b", "progress=false"],
        ["optimizer.lr=1.5", "seed=1", "run_dir=a", "data.root=x"],
        ["optimizer.lr=1", "seed=2", "run_dir=a", "data.root=x"],
    )
    assert config_hash(one) == config_hash(same)
    assert len({config_hash(each) for each in (one, other, seed)}) == 3


def planned(loader: Any, sweep: Path, seeds: Sequence[int], **more: Any) -> list[PlannedJob]:
    configs = composed(loader, *([f"seed={seed}", f"run_dir={sweep}"] for seed in seeds))
    named = ((config, f"seed {config.seed}") for config in configs)
    arguments = {"resumes": True, **more}
    return plan(named, 0, len(seeds), sweep, read_jobs(sweep), **arguments)


def finish(sweep: Path, job: PlannedJob, status: str = "complete") -> None:
    job.path.mkdir(parents=True)
    (job.path / "run.json").write_text(json.dumps({"status": status}))
    add_jobs(sweep, [job.listed], begins=True)


def test_jobs_keep_their_folders_wherever_their_numbers_move(loader: Any, tmp_path: Path) -> None:
    first = planned(loader, tmp_path, [10, 11, 12])
    assert [job.listed.job for job in first] == [0, 1, 2]
    assert {job.state for job in first} == {"waiting"}
    for job, status in zip(first, ("complete", "failed", "running"), strict=True):
        finish(tmp_path, job, status)
    again = planned(loader, tmp_path, [9, 12, 11, 10, 13])
    found = [(job.listed.job, job.state) for job in again]
    assert found == [(5, "waiting"), (2, "waiting"), (1, "failed"), (0, "complete"), (4, "waiting")]
    assert all(job.path == tmp_path / str(job.listed.job) for job in again)


def test_equal_jobs_have_a_folder_each(loader: Any, tmp_path: Path) -> None:
    for job in planned(loader, tmp_path, [3, 3]):
        finish(tmp_path, job)
    again = planned(loader, tmp_path, [3, 3, 3])
    assert [(job.listed.job, job.state) for job in again] == [(0, "complete"), (1, "complete"), (2, "waiting")]


def test_without_resuming_each_job_has_hydras_number(loader: Any, tmp_path: Path) -> None:
    for job in planned(loader, tmp_path, [1, 2]):
        finish(tmp_path, job)
    again = planned(loader, tmp_path, [2, 1, 5], resumes=False)
    assert [(job.listed.job, job.state, job.is_listed) for job in again] == [
        *((0, "waiting", False), (1, "waiting", False), (2, "waiting", True))
    ]


@pytest.mark.slow
def test_each_job_returns_its_own_and_is_listed(loader: Any, tmp_path: Path) -> None:
    jobs = [[f"seed={seed}", "optimizer.lr=0.1", f"run_dir={tmp_path / 'sweep'}"] for seed in range(20)]
    master = loader.load_configuration("run", ["seed=0,1", f"run_dir={tmp_path / 'sweep'}"], RunMode.MULTIRUN)
    composing.compose_once()
    failures = Failures(tmp_path / "failures")
    failures.folder.mkdir()
    launcher = JobLauncher(failures, ProcessEngine, n_jobs=2)
    launcher.setup(hydra_context=HydraContext(loader, Callbacks(None)), task_function=stub, config=master)
    assert [each.return_value for each in launcher.launch(jobs[:2], 0)] == [0.0, 1.0]  # starts the server
    returned = launcher.launch(jobs, 0)
    assert [each.return_value for each in returned] == list(range(20))
    listed = read_jobs(tmp_path / "sweep")
    assert {job.state for job in listed.values()} == {"complete"}
    assert len(listed) == 20


def stub(config: DictConfig) -> float:
    return float(config.seed)


def test_damaged_lines_of_the_list_are_left_out(tmp_path: Path) -> None:
    jobs = [ListedJob(number, "abc", f"job {number}", str(number)) for number in range(3)]
    add_jobs(tmp_path, jobs[:2])
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"job": 7, "conf')
    add_jobs(tmp_path, jobs[2:], begins=True)
    with (tmp_path / NAME).open("ab") as file:
        for line in (b"[]", b"3", b"\xff", b"[" * 9999, b'{"job": "x"}', b"null"):
            file.write(line + b"\n")
        for bad in ({"folder": "../x"}, {"folder": "/etc"}, {"job": -1}, {"job": 1e999}):
            values = {"job": 9, "config": "c", "name": "n", "folder": "9", "state": "complete", "message": ""}
            file.write(json.dumps(values | bad).encode() + b"\n")
    assert read_jobs(tmp_path) == dict(enumerate(jobs))
    assert read_jobs(tmp_path / "nowhere") == {}


def test_a_folder_that_the_list_does_not_have_as_the_jobs_own_is_not_taken_for_it(loader: Any, tmp_path: Path) -> None:
    """It may be a run with other settings, which the job itself refuses."""
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_text('{"status": "complete"}')
    words = [f"run_dir={tmp_path}", "seed=0"], [f"run_dir={tmp_path}", "seed=1"]

    def states() -> list[str]:
        configs = iter([(config, "name") for config in composed(loader, *words)])
        return [job.state for job in plan(configs, 0, 2, tmp_path, read_jobs(tmp_path), resumes=True)]

    assert states() == ["waiting", "waiting"]
    own = config_hash(composed(loader, words[1])[0])
    add_jobs(tmp_path, [ListedJob(0, "other", "n", "0"), ListedJob(1, own, "n", "1")])
    assert states() == ["waiting", "complete"]


@pytest.mark.parametrize("words", [["seeds_together=-1"], ["seeds_together=abc"], ["seeds_together=1000000000"]])
def test_a_mistake_in_the_number_of_seeds_is_left_to_the_job(loader: Any, words: list[str], tmp_path: Path) -> None:
    configs = iter([(config, "name") for config in composed(loader, [*words, f"run_dir={tmp_path}", "seed=0"])])
    (job,) = plan(configs, 0, 1, tmp_path, {}, resumes=True)
    assert (job.state, job.objective()) == ("waiting", None)


@pytest.mark.parametrize(("seeds", "clash"), [((0, 3), None), ((0, 2), 2), ((3, 1), 3)])
def test_no_seed_is_trained_twice(loader: Any, seeds: tuple[int, int], clash: int | None, tmp_path: Path) -> None:
    def planned(*more: str) -> list[PlannedJob]:
        jobs = [[f"seed={seed}", "seeds_together=3", f"run_dir={tmp_path}", *more] for seed in seeds]
        jobs.append([f"seed={seeds[0]}", "seeds_together=3", f"run_dir={tmp_path}", "optimizer.lr=0.7"])
        configs = zip(composed(loader, *jobs), ("job a", "job b", "job c"), strict=True)
        return plan(iter(configs), 0, 3, tmp_path, {}, resumes=True)

    if clash is None:
        assert [len(job.runs) for job in planned()] == [3, 3, 3]
    else:
        with pytest.raises(ConfigurationError, match=f"job a and job b .* both train seed {clash}: .* in steps of 3"):
            planned()


def test_values_of_the_environment_count(loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rate in ("0.1", "0.01", "0.1"):
        monkeypatch.setenv("A_RATE", rate)
        (config,) = composed(loader, ["optimizer.lr=${oc.env:A_RATE}", "seed=0"])
        found.append(config_hash(config))
    monkeypatch.delenv("A_RATE")
    (config,) = composed(loader, ["optimizer.lr=${oc.env:A_RATE}", "seed=0"])
    assert found[0] == found[2] != found[1] != config_hash(config)


def test_no_two_jobs_have_one_number_and_a_folder_of_several_is_nobodys(loader: Any, tmp_path: Path) -> None:
    common = [f"run_dir={tmp_path}", "hydra.sweep.subdir=lr_${optimizer.lr}"]

    def planned(*rates: str) -> list[PlannedJob]:
        words = [[*common, f"optimizer.lr={rate}"] for rate in rates]
        return plan(
            iter([(config, "name") for config in composed(loader, *words)]), 0, len(rates), tmp_path, known, True
        )

    known: dict[int, ListedJob] = {}
    known = {job.listed.job: job.listed for job in planned("0.1", "0.3")}
    assert [job.listed.job for job in planned("0.3", "0.2", "0.1")] == [1, 3, 0]
    common[1] = "hydra.sweep.subdir=same"
    known = {job.listed.job: job.listed for job in planned("0.1", "0.3")}
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "run.json").write_text('{"status": "complete"}')
    assert [job.state for job in planned("0.1", "0.3")] == ["waiting", "waiting"]
