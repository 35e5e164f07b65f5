"""Images that come with installed packages: they are what the package's own reader gives, and damage is one line."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cl_powerprop.data.digits import Digits
from cl_powerprop.data.packaged import packaged_table
from cl_powerprop.errors import DataError


def test_digits_are_those_of_scikit_learn() -> None:
    images = Digits().read(Path("unused"))
    expected = load_digits()
    levels = np.rint(expected.images * (255 / 16)).astype(np.uint8)
    for label in range(10):
        of_class = levels[expected.target == label]
        is_test = np.arange(len(of_class)) % 5 == 4
        assert np.array_equal(images.train_images[images.train_labels == label], of_class[~is_test])
        assert np.array_equal(images.test_images[images.test_labels == label], of_class[is_test])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ends the test if it is imported."""
    folder = tmp_path / "shipped_digits"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_table_is_read_without_importing_its_package(package: Path) -> None:
    (package / "one.csv").write_text("1,2,3\n")
    table = packaged_table("shipped_digits", "shipped-digits", "one.csv", (1, 3))
    assert table.tolist() == [[1, 2, 3]]
    assert "shipped_digits" not in sys.modules


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"cannot be read: .*numbers\.csv not found.*; reinstall shipped-digits"),
        ("1,2\n3,x\n", r"cannot be read: could not convert string 'x'.*; reinstall shipped-digits"),
        ("1,2\n3\n", r"cannot be read: the number of columns changed.*; reinstall shipped-digits"),
        ("1,2\n3,4\n5,6\n", r"have the shape \(3, 2\), not \(2, 2\); reinstall shipped-digits"),
    ],
    ids=["missing", "no number", "torn", "longer"],
)
def test_a_damaged_table_is_one_line(package: Path, content: str | None, said: str) -> None:
    if content is not None:
        (package / "numbers.csv").write_text(content)
    with pytest.raises(DataError, match=said) as refused:
        packaged_table("shipped_digits", "shipped-digits", "numbers.csv", (2, 2))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("damage", ["cut off", "altered"])
def test_a_damaged_archive_is_one_line(package: Path, damage: str) -> None:
    whole = gzip.compress("\n".join(f"{number},{number * number}" for number in range(1000)).encode())
    middle = len(whole) // 2
    altered = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40]) + whole[middle + 40 :]
    (package / "numbers.csv.gz").write_bytes(whole[:middle] if damage == "cut off" else altered)
    with pytest.raises(DataError, match=r"cannot be read: .*; reinstall shipped-digits"):
        packaged_table("shipped_digits", "shipped-digits", "numbers.csv.gz", (1000, 2))


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(DataError, match=r"no-such-digits, .* is not installed: pip install no-such-digits"):
        packaged_table("no_such_digits", "no-such-digits", "numbers.csv", (2, 2))
