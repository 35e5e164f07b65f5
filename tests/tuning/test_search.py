"""Several studies side by side: the next begins when there is room, and one that fails costs the others nothing."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.launching.processes import ProcessEngine
from cl_powerprop.run_lock import holder_of
from cl_powerprop.tuning.objectives import parse_objectives
from cl_powerprop.tuning.report import write_table
from cl_powerprop.tuning.search import Search, searched
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

    def start(
        self, engine: ProcessEngine, function: Callable[..., Any], calls: Sequence[Sequence[Any]]
    ) -> list["Future[Any]"]:
        futures = [Future[Any]() for _ in calls]
        for (order, *_), future in zip(calls, futures, strict=True):
            self.begun.append((order.folder.name, order.number))
            self.waiting.append((order, future))
        return futures

    def look(self, engine: ProcessEngine) -> None:
        order, future = self.waiting.pop()
        study = open_study(order.folder, parse_objectives(OBJECTIVE))
        failed = order.folder.name in self.without_value
        if failed:
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


def test_the_next_study_begins_when_the_last_trials_of_the_one_before_still_run(
    tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("first", "second", "third")
    asked: list[str] = []

    def searches() -> Any:
        for name in names:
            asked.append(name)
            yield wanted(tmp_path, name)

    reported: list[str] = []

    def report(study: Study) -> int:
        assert holder_of(study.folder) is not None, "nobody else writes in it"
        reported.append(study.folder.name)
        return write_table(study)

    for ended in searched(searches(), report, jobs=2):
        assert ended.result() == 0
        assert ended.search.name in reported
        assert (tmp_path / ended.search.name / "trials.csv").read_text().count("\n") == 4
    assert sorted(reported) == sorted(names)
    assert asked == [*names]
    assert machine.begun == [(name, number) for name in names for number in range(3)], "each in its order"
    places = {trial: place for place, trial in enumerate(machine.ended)}
    assert max(places.values()) == places["first", 1], "no study waits for another's trial that takes long"
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("trial 0 (defaults): second, lr ")]
    assert all(holder_of(tmp_path / name) is None for name in names)


def test_one_at_a_time_each_study_ends_before_the_next_begins(tmp_path: Path, machine: Machine) -> None:
    for _ in searched([wanted(tmp_path, "first"), wanted(tmp_path, "second")], write_table, jobs=1):
        pass
    assert machine.begun == machine.ended == [(name, number) for name in ("first", "second") for number in range(3)]


def test_a_study_that_cannot_be_costs_the_others_nothing(tmp_path: Path, machine: Machine) -> None:
    machine.without_value = {"third"}
    searches = [
        wanted(tmp_path, "first"),
        wanted(tmp_path, "second", more=["optimizer.lrr=3"]),
        wanted(tmp_path, "third"),
        wanted(tmp_path, "fourth"),
    ]
    ended = {each.search.name: each for each in searched(searches, write_table, jobs=2)}
    assert {name for name, each in ended.items() if each.error is None} == {"first", "fourth"}
    with pytest.raises(ConfigurationError, match=r"unknown option 'optimizer\.lrr'"):
        ended["second"].result()
    with pytest.raises(ConfigurationError, match=r"trial \d: third, lr [\d.]+: the run has no validation_accuracy"):
        ended["third"].result()
    assert len([name for name, _ in machine.begun if name == "third"]) < 3, "no other trial of it begins"
    assert not (tmp_path / "third" / "trials.csv").exists()
    assert (tmp_path / "fourth" / "trials.csv").exists()


def test_a_folder_with_something_else_ends_all(tmp_path: Path, machine: Machine) -> None:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "file").touch()
    found = searched([wanted(tmp_path, "first"), wanted(tmp_path, "second")], write_table, jobs=1)
    with pytest.raises(RunFolderError, match="second"):
        list(found)
    assert holder_of(tmp_path / "first") is None
    before = threading.active_count()
    assert [each.search.name for each in searched([wanted(tmp_path, "first")], write_table, jobs=1)] == ["first"]
    assert len(machine.begun) == 3, "what has ended does not run again"
    assert threading.active_count() == before
