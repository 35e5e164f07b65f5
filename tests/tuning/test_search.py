"""Several studies side by side: the next begins when there is room, and one that fails costs the others nothing."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.launching.processes import ProcessEngine
from cl_powerprop.run_lock import holder_of
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.report import write_table
from cl_powerprop.tuning.search import Search, run_searches
from cl_powerprop.tuning.study import Study, fail
from cl_powerprop.tuning.study_file import open_study
from cl_powerprop.tuning.trial import Order

pytest.importorskip("optuna")

RANGE = "optimizer.lr=interval(0.1,1)"
OBJECTIVE = "validation_accuracy"


class Machine:
    """Stands in for processes: what is begun ends when no more has room, the last one first."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.ended: list[tuple[str, int]] = []
        self.waiting: list[tuple[Order, Future[Any]]] = []
        self.without_value: set[str] = set()
        self.breaks: set[tuple[str, int]] = set()
        self.on_start: Callable[[], None] = lambda: None

    def start(
        self, engine: ProcessEngine, function: Callable[..., Any], calls: Sequence[Sequence[Any]]
    ) -> list["Future[Any]"]:
        self.on_start()
        futures = [Future[Any]() for _ in calls]
        for (order, *_), future in zip(calls, futures, strict=True):
            self.begun.append((order.folder.name, order.number))
            self.waiting.append((order, future))
        return futures

    def look(self, engine: ProcessEngine) -> None:
        order, future = self.waiting.pop()
        study = open_study(order.folder, parse_objectives(OBJECTIVE))
        failed = order.folder.name in self.without_value
        if failed or (order.folder.name, order.number) in self.breaks:
            fail(study, order.entry, f"the run has no {OBJECTIVE}; choose another objective")
        else:
            study.tell(order.entry, study.get_trials(deepcopy=False)[order.entry].params["optimizer.lr"] / 2)
        self.ended.append((order.folder.name, order.number))
        future.set_result(failed)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    monkeypatch.setattr(ProcessEngine, "start", lambda *arguments: found.start(*arguments))
    monkeypatch.setattr(ProcessEngine, "look", lambda *arguments: found.look(*arguments))
    return found


def wanted(folder: Path, name: str, trials: int = 3, more: Sequence[str] = ()) -> Search:
    words = ["data=digits", "strategy=naive", RANGE, *more, f"run_dir={folder / name}"]
    return Search(words, trials, OBJECTIVE, prunes=False, name=name)


class Told:
    """What is told of studies, in order."""

    def __init__(self) -> None:
        self.reported: list[str] = []
        self.failed: dict[str, ConfigurationError] = {}

    def report(self, search: Search, study: Study) -> None:
        assert holder_of(study.folder) is not None, "nobody else writes in it"
        write_table(study)
        self.reported.append(search.name)

    def fail(self, search: Search, error: ConfigurationError) -> None:
        assert search.name not in self.failed, "told once"
        self.failed[search.name] = error


def test_the_next_study_begins_when_the_last_trials_of_the_one_before_still_run(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    names, told = ("first", "second", "third"), Told()
    run_searches([wanted(tmp_path, name) for name in names], told.report, told.fail, jobs=2)
    assert sorted(told.reported) == sorted(names)
    assert all((tmp_path / name / "trials.csv").read_text().count("\n") == 4 for name in names)
    assert machine.begun == [(name, number) for name in names for number in range(3)], "each in its order"
    assert machine.ended[-1] == ("first", 1), "no study waits for another's trial that takes long"
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("trial 0 (defaults): second, lr ")]
    assert all(holder_of(tmp_path / name) is None for name in names)


def test_one_at_a_time_a_study_is_reported_before_the_next_begins(tmp_path: Path, machine: Machine) -> None:
    told = Told()
    names = ["first", "second"]

    def searches() -> Iterator[Search]:
        for number, name in enumerate(names):
            assert told.reported == names[:number]
            yield wanted(tmp_path, name)

    run_searches(searches(), told.report, told.fail, jobs=1)
    assert machine.begun == machine.ended == [(name, number) for name in names for number in range(3)]
    assert told.reported == names


def test_a_study_that_cannot_be_costs_the_others_nothing(tmp_path: Path, machine: Machine) -> None:
    machine.without_value = {"third"}
    searches = [
        wanted(tmp_path, "first"),
        wanted(tmp_path, "second", more=["optimizer.lrr=3"]),
        wanted(tmp_path, "third"),
        wanted(tmp_path, "fourth"),
    ]
    told = Told()
    run_searches(searches, told.report, told.fail, jobs=2)
    assert sorted(told.reported) == ["first", "fourth"]
    assert re.search(r"unknown option 'optimizer\.lrr'", str(told.failed["second"]))
    assert re.search(r"trial \d: third, lr [\d.]+: the run has no validation_accuracy", str(told.failed["third"]))
    assert len([name for name, _ in machine.begun if name == "third"]) < 3, "no other trial of it begins"
    assert not (tmp_path / "third" / "trials.csv").exists()


def test_after_a_folder_with_something_else_what_has_begun_ends_and_nothing_more_begins(
    tmp_path: Path, machine: Machine
) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "file").touch()
    told = Told()
    names = ("first", "second", "third")
    with pytest.raises(RunFolderError, match="second"):
        run_searches([wanted(tmp_path, name) for name in names], told.report, told.fail, jobs=2)
    assert sorted(machine.begun) == sorted(machine.ended) == [("first", number) for number in range(3)]
    assert told.reported == ["first"]
    assert holder_of(tmp_path / "first") is None
    run_searches([wanted(tmp_path, "first")], told.report, told.fail, jobs=2)
    assert told.reported == ["first", "first"]
    assert len(machine.begun) == 3, "what has ended does not run again"


def test_how_many_run_at_a_time_is_the_same_for_all(tmp_path: Path, machine: Machine) -> None:
    told = Told()
    searches = [wanted(tmp_path, "first", more=["device=cpu"]), wanted(tmp_path, "second", more=["train.threads=64"])]
    run_searches(searches, told.report, told.fail)
    assert sorted(told.reported) == ["first", "second"]


def test_failed_trials_that_run_again_leave_no_table_that_says_they_have_ended(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Told()
    run_searches([wanted(tmp_path, "first")], told.report, told.fail, jobs=1)
    study = open_study(tmp_path / "first", parse_objectives(OBJECTIVE))
    again = replace(wanted(tmp_path, "first", trials=5), retries_failed=True)
    run_searches([again], told.report, told.fail, jobs=1)
    assert "run again" not in capsys.readouterr().out, "none has failed"
    assert len(study.get_trials()) == 5

    machine.breaks = {("other", 1)}
    run_searches([wanted(tmp_path, "other")], told.report, told.fail, jobs=1)
    machine.breaks = set()
    tables: list[bool] = []
    machine.on_start = lambda: tables.append((tmp_path / "other" / "trials.csv").exists())
    run_searches([replace(wanted(tmp_path, "other"), retries_failed=True)], told.report, told.fail, jobs=1)
    assert "other: 1 of 3 trials failed before, and run again" in capsys.readouterr().out
    assert tables == [False]
    assert "failed" not in (tmp_path / "other" / "trials.csv").read_text()
