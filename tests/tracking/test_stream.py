"""A sink that fails, in whichever call, causes one message and nothing else."""

import pytest

from cl_powerprop.tracking import Row, RowStream

ROW = Row(0, 1, 10, 0, "train", "loss", 0.5)


class Recorder:
    """A sink that records its calls, and fails in one of them."""

    def __init__(self, fails_in: str = "") -> None:
        self.fails_in = fails_in
        self.calls: list[str] = []
        self._call("open")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails_in:
            raise OSError("no\nspace left")

    def write(self, row: Row) -> None:
        self._call("write")

    def flush(self) -> None:
        self._call("flush")

    def close(self) -> None:
        self._call("close")

    def abort(self) -> None:
        self._call("abort")
        raise RuntimeError("and this fails too")


@pytest.mark.parametrize("fails_in", ["open", "write", "flush", "close"])
def test_a_failing_sink_is_reported_once_and_dropped(fails_in: str) -> None:
    whole, told, broken = Recorder(), [], []

    def open_broken() -> Recorder:
        made = Recorder.__new__(Recorder)
        broken.append(made)
        made.__init__(fails_in)  # type: ignore[misc]
        return made

    record = Recorder()
    rows = RowStream(record, {"broken": open_broken, "whole": lambda: whole}, told.append)
    for _ in range(2):
        rows.write(ROW)
        rows.write(ROW)
        rows.flush()
    rows.close()
    assert told == ["broken failed and is left out from here on: no space left"]
    assert record.calls == ["open", *["write", "write", "flush"] * 2]
    assert whole.calls == ["open", *["write", "write", "flush"] * 2, "close"]
    calls = broken[0].calls
    assert calls.count(fails_in) == 1, "the first failure was the last call"
    assert calls[-1] == ("open" if fails_in == "open" else "abort")
    assert rows.seconds > 0


def test_what_is_only_shown_is_not_recorded() -> None:
    record, sink = Recorder(), Recorder()
    rows = RowStream(record, {"sink": lambda: sink}, lambda _: None, written=7)
    rows.show(ROW)
    assert (record.calls, sink.calls, rows.written) == (["open"], ["open", "write"], 7)


@pytest.mark.parametrize("fails_in", ["write", "flush"])
def test_a_run_without_its_own_record_fails(fails_in: str) -> None:
    rows = RowStream(Recorder(fails_in), {}, lambda _: None)
    with pytest.raises(OSError, match="no\nspace left"):  # noqa: PT012 (whichever of the two it is)
        rows.write(ROW)
        rows.flush()


def test_curves_are_named_alike_everywhere() -> None:
    assert ROW.curve == "train/loss/task_00"
    assert Row(4, 1, 10, 3, "test", "accuracy", 0.5).curve == "test/accuracy/task_03"
    assert Row(4, 1, 10, 123, "valid", "loss", 0.5).curve == "valid/loss/task_123"
    assert Row(4, 1, 10, 3, "train", "capacity_used", 0.5).curve == "capacity/used"
    assert Row(4, 1, 10, 3, "test", "average_accuracy", 0.5).curve == "test/average_accuracy"
