import csv
import json
import math
import os
from pathlib import Path

import pytest

from cl_powerprop.errors import RunFolderError, UserError
from cl_powerprop.record import new_run_id
from cl_powerprop.run_folder import RunFolder

from .conftest import tree


def test_makes_its_folder(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a" / "b").write_text("note.txt", "Grüße\n")
    assert (tmp_path / "a" / "b" / "note.txt").read_text(encoding="utf-8") == "Grüße\n"


def test_an_empty_folder_can_be_taken(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).path == tmp_path


@pytest.mark.parametrize("name", ["run.json", ".hidden", "run.json.part"])
def test_a_folder_with_anything_in_it_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunFolderError, match="never overwritten") as caught:
        RunFolder(tmp_path)
    assert isinstance(caught.value, UserError)
    assert str(tmp_path) in str(caught.value)
    assert tree(tmp_path) == {name: b"mine"}


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match="cannot be written"):
            RunFolder(path)
    assert (tmp_path / "file").read_text() == "mine"


def test_files_are_renamed_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.write_text("note.txt", "first")
    renamed: list[tuple[str, str]] = []
    replace = os.replace

    def spy(source: Path, target: Path) -> None:
        assert Path(source).parent == tmp_path
        renamed.append((Path(target).name, Path(target).read_text()))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    folder.write_text("note.txt", "second")
    assert renamed == [("note.txt", "first")], "the old file stands until the new one is whole"
    assert tree(tmp_path) == {"note.txt": b"second"}


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("run.json", {"status": "running"})
    with pytest.raises(TypeError):
        folder.write_json("run.json", {"status": object()})
    with pytest.raises(UnicodeEncodeError):
        folder.write_text("run.json", "\ud800")
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "running"}


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path: Path) -> None:
    content = {"nan": math.nan, "more": {"inf": [math.inf, 1.5, (-math.inf, 2)]}, "text": "NaN", "yes": True}
    RunFolder(tmp_path).write_json("run.json", content)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert read == {"nan": None, "more": {"inf": [None, 1.5, [None, 2]]}, "text": "NaN", "yes": True}


def test_nan_and_none_are_empty_in_csv_and_the_rest_survives(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_csv("a.csv", ["x", "y, z"], [[1 / 3, math.nan], [None, 'say "so"'], [0.0, 0]])
    text = (tmp_path / "a.csv").read_text()
    assert "\r" not in text
    rows = list(csv.reader(text.splitlines()))
    assert rows == [["x", "y, z"], ["0.3333333333333333", ""], ["", 'say "so"'], ["0.0", "0"]]
    assert float(rows[1][0]) == 1 / 3


def test_pandas_never_reads_a_run_id_as_a_number() -> None:
    ids = {new_run_id() for _ in range(100)}
    assert len(ids) == 100
    for kind in (float, int, complex):
        for run_id in ids:
            with pytest.raises(ValueError, match=r"invalid literal|could not convert|malformed"):
                kind(run_id)
    assert all(run_id.isalpha() for run_id in ids), "56718e786695 would be a number"


def test_a_run_that_was_killed_as_it_began_leaves_its_folder_free(tmp_path: Path) -> None:
    for name in (".reserve", ".config.yaml.0123456789ab.part", "..reserve.0123456789ab.part"):
        (tmp_path / name).touch()
    RunFolder(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.part").touch()
    with pytest.raises(RunFolderError, match="exists already"):
        RunFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.part"]
