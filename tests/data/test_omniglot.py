"""Omniglot: small zips made for the tests, and the full data set if it is available."""

import io
import multiprocessing
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl_powerprop.cli import main
from cl_powerprop.data import omniglot as module
from cl_powerprop.data.omniglot import BACKGROUND, DRAWERS, EVALUATION, SIDE, Drawings, Omniglot
from cl_powerprop.errors import DataError
from cl_powerprop.files import write_file

from .omniglot_zips import CHARACTERS, png, small_dataset, small_files, strokes, write_zips


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_zips(tmp_path / "data", small_files())
    return tmp_path / "data"


def check(drawings: Drawings, size: int = 28) -> None:
    """Compare with the drawings, scaled by Pillow on the inverted image."""
    assert drawings.images.shape == (CHARACTERS * DRAWERS, size, size)
    assert drawings.images.dtype == np.uint8
    assert drawings.alphabets == ("Abc", "Runes", "Dots")
    assert drawings.character.tolist() == [number // DRAWERS for number in range(CHARACTERS * DRAWERS)]
    assert drawings.drawer.tolist() == list(range(DRAWERS)) * CHARACTERS
    assert np.bincount(drawings.alphabet).tolist() == [2 * DRAWERS, DRAWERS, 3 * DRAWERS]
    for number in (0, 7, DRAWERS, 3 * DRAWERS + 5, CHARACTERS * DRAWERS - 1):
        ink = Image.fromarray((~strokes(number)).astype(np.uint8) * 255)
        expected = np.asarray(ink.resize((size, size), Image.Resampling.BILINEAR), dtype=int)
        assert np.abs(expected - drawings.images[number]).max() <= 1


def test_drawings_are_read_in_order_and_scaled(root: Path) -> None:
    check(small_dataset().read(root))


def test_any_size(root: Path) -> None:
    check(small_dataset().read(root, size=14), size=14)
    whole = small_dataset().read(root, size=SIDE)
    assert np.array_equal(whole.images[3], (~strokes(3)).astype(np.uint8) * 255)


def cache_of(root: Path, size: int = 28) -> Path:
    return root / "omniglot-py" / f"omniglot_{size}.npz"


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(Omniglot, "_decode", decode)


def test_the_second_reading_comes_from_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = small_dataset().read(root)
    assert cache_of(root).exists()
    assert not list(root.rglob("*.part"))
    forbid_decoding(monkeypatch)
    second = small_dataset().read(root)
    check(second)
    assert np.array_equal(first.images, second.images)


def flip_a_bit(content: bytearray) -> None:
    content[len(content) // 2] ^= 1


def swap_images(content: bytearray) -> None:
    """A well-formed cache with wrong images in it."""
    with np.load(io.BytesIO(bytes(content))) as cached:
        fields = {name: cached[name] for name in cached.files}
    fields["images"] = fields["images"][::-1]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **fields)
    content[:] = buffer.getvalue()


def reshape_images(content: bytearray) -> None:
    """The right bytes in the wrong shape."""
    with np.load(io.BytesIO(bytes(content))) as cached:
        fields = {name: cached[name] for name in cached.files}
    fields["images"] = fields["images"].reshape(-1, 14, 56)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **fields)
    content[:] = buffer.getvalue()


def save_one_array(content: bytearray) -> None:
    """A file that numpy can read, but not as an archive."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    content[:] = buffer.getvalue()


DAMAGES: dict[str, Callable[[bytearray], None]] = {
    "cut": lambda content: content.__delitem__(slice(len(content) // 2, None)),
    "empty": lambda content: content.clear(),
    "bit": flip_a_bit,
    "not a zip": lambda content: content.__setitem__(slice(None), b"nonsense"),
    "other images": swap_images,
    "other shape": reshape_images,
    "an array": save_one_array,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_again(root: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small_dataset().read(root)
    content = bytearray(cache_of(root).read_bytes())
    DAMAGES[damage](content)
    cache_of(root).write_bytes(content)
    check(small_dataset().read(root))
    forbid_decoding(monkeypatch)
    check(small_dataset().read(root))


def test_a_cache_of_other_zips_is_not_used(root: Path) -> None:
    small_dataset().read(root)
    files = small_files()
    first = next(iter(files["images_background.zip"]))
    files["images_background.zip"][first] = png(strokes(999))
    write_zips(root, files)
    with pytest.raises(DataError, match="the drawings differ from the published ones"):
        small_dataset().read(root)


def test_a_pickle_in_the_cache_is_never_loaded(root: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return os.mkdir, (str(root / "exploded"),)

    np.savez_compressed(cache_of(root), images=np.array([Bomb()], dtype=object), sha256="", stamp="")
    check(small_dataset().read(root))
    assert not (root / "exploded").exists()


def test_beside_read_only_zips_the_cache_goes_to_the_home_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_unless_beside_the_zips(path: Path, content: Iterable[memoryview]) -> None:
        if path.parent == root / "omniglot-py":
            raise PermissionError(13, "Permission denied", str(path))
        write_file(path, content)

    monkeypatch.setattr("cl_powerprop.data.omniglot.write_file", write_unless_beside_the_zips)
    check(small_dataset().read(root))
    assert not cache_of(root).exists()
    assert (Path.home() / ".cache" / "cl-powerprop" / "omniglot-py" / "omniglot_28.npz").exists()
    forbid_decoding(monkeypatch)
    check(small_dataset().read(root))


def test_a_full_disk_only_prevents_the_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    check(small_dataset().read(root))
    assert "No space left on device" in caplog.text
    assert not list(root.rglob("*.part"))
    assert not list(root.rglob("*.npz"))


def read_and_count(root: Path, barrier: object) -> int:
    barrier.wait()  # type: ignore[attr-defined]
    drawings = small_dataset().read(root)
    check(drawings)
    return len(drawings.images)


def test_two_processes_may_decode_at_once(root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(2) as pool:
        barrier = manager.Barrier(2)
        counts = [pool.apply_async(read_and_count, (root, barrier)) for _ in range(2)]
        assert [count.get(60) for count in counts] == [CHARACTERS * DRAWERS] * 2
    assert not list(root.rglob("*.part"))
    check(small_dataset().read(root))


def drop(files: dict[str, dict[str, bytes]], part: str) -> None:
    for entries in files.values():
        for path in [path for path in entries if part in path]:
            del entries[path]


def put(files: dict[str, dict[str, bytes]], content: bytes) -> None:
    entries = files["images_evaluation.zip"]
    entries[next(iter(entries))] = content


def test_a_missing_alphabet_is_named(root: Path) -> None:
    files = small_files()
    drop(files, "/Runes/")
    write_zips(root, files)
    with pytest.raises(DataError, match=r"40 drawings instead of 60; first difference: Runes, character 1"):
        small_dataset().read(root)


def test_a_missing_drawing_is_named(root: Path) -> None:
    files = small_files()
    drop(files, "/Dots/character02/")
    files["images_evaluation.zip"]["images_evaluation/Dots/character02/0001_07.png"] = png(strokes(0))
    write_zips(root, files)
    with pytest.raises(DataError, match="Dots, character 2, drawer 1"):
        small_dataset().read(root)


def test_an_alphabet_too_many_is_named(root: Path) -> None:
    files = small_files()
    files["images_evaluation.zip"]["images_evaluation/Extra/character01/0001_01.png"] = png(strokes(0))
    write_zips(root, files)
    with pytest.raises(DataError, match="Extra, character 1, drawer 1"):
        small_dataset().read(root)


def test_an_image_of_another_size_is_named(root: Path) -> None:
    files = small_files()
    put(files, png(np.ones((28, 28), dtype=bool)))
    write_zips(root, files)
    with pytest.raises(DataError, match=r"0060_01\.png is \(28, 28\), not \(105, 105\)"):
        small_dataset().read(root)


@pytest.mark.parametrize("content", [b"", b"no image", png(strokes(1))[:60]])
def test_a_damaged_image_is_one_error(root: Path, content: bytes) -> None:
    files = small_files()
    put(files, content)
    write_zips(root, files)
    with pytest.raises(DataError, match=r"images_evaluation\.zip is damaged or incomplete"):
        small_dataset().read(root)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_zip_is_one_error(root: Path, keep: float) -> None:
    path = root / "omniglot-py" / "images_background.zip"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"images_background\.zip is damaged or incomplete"):
        small_dataset().read(root)


def test_flipped_bytes_within_an_image_are_found(root: Path) -> None:
    path = root / "omniglot-py" / "images_background.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 10] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged or incomplete"):
        small_dataset().read(root)


def test_a_missing_zip_names_the_command(root: Path) -> None:
    (root / "omniglot-py" / "images_evaluation.zip").unlink()
    assert "missing in" in small_dataset().status(root)
    assert "images_evaluation.zip" in small_dataset().status(root)
    with pytest.raises(DataError, match="cl-powerprop data download omniglot"):
        small_dataset().read(root)


def test_a_damaged_zip_never_ends_in_a_cache(root: Path) -> None:
    files = small_files()
    put(files, b"no image")
    write_zips(root, files)
    with pytest.raises(DataError):
        small_dataset().read(root)
    assert not list(root.rglob("*.npz"))


def test_progress_counts_the_images(root: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    small_dataset().verify(root, lambda *values: seen.append(values))
    assert seen[-1] == ("decoding omniglot", CHARACTERS * DRAWERS, CHARACTERS * DRAWERS)


def test_zips_with_other_drawings_are_fetched_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each drawing is there, and one is another one: the content decides, not the names in the zip."""
    fetched: list[str] = []
    monkeypatch.setattr(module, "fetch", lambda urls, path, *_: fetched.append(path.name))
    files = small_files()
    one, another, *_ = files["images_background.zip"]
    files["images_background.zip"][one] = files["images_background.zip"][another]
    write_zips(root, files)
    with pytest.raises(DataError, match="differ from the published ones"):
        small_dataset().read(root)
    small_dataset().download(root)
    assert fetched == ["images_background.zip", "images_evaluation.zip"]
    assert not small_dataset().unverified(root)
    assert Omniglot(sha256=None).unverified(root)


def test_a_whole_zip_is_not_fetched_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(module, "fetch", lambda urls, path, *_: fetched.append(path.name))
    small_dataset().download(root)
    assert fetched == []
    path = root / "omniglot-py" / "images_evaluation.zip"
    path.write_bytes(path.read_bytes()[:-500])
    small_dataset().download(root)
    (root / "omniglot-py" / "images_background.zip").unlink()
    small_dataset().download(root)
    assert fetched == ["images_evaluation.zip", "images_background.zip", "images_evaluation.zip"]


def test_the_upstream_zips_are_the_published_ones() -> None:
    """Compared with torchvision's list."""
    from torchvision.datasets import Omniglot as Theirs

    assert {file.name.removesuffix(".zip"): file.md5 for file in Omniglot().zips} == Theirs.zips_md5
    assert Omniglot.mirror.rstrip("/") == Theirs.download_url_prefix


def test_the_published_counts() -> None:
    assert (len(BACKGROUND), sum(BACKGROUND.values())) == (30, 964)
    assert (len(EVALUATION), sum(EVALUATION.values())) == (20, 659)


def test_every_part_is_a_value() -> None:
    assert replace(Omniglot().zips[0], name="x").alphabets is BACKGROUND


@pytest.fixture
def full_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = os.environ.get("CL_POWERPROP_DATA")
    if not folder or not (Path(folder) / "omniglot-py" / "images_background.zip").exists():
        pytest.skip("needs Omniglot in $CL_POWERPROP_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    return Path(folder)


@pytest.mark.full_data
def test_the_full_set(full_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compared with counts that are taken from the zips without this package's code."""
    drawings = Omniglot().read(full_data)
    assert drawings.images.shape == (32460, 28, 28)
    assert len(drawings.alphabets) == 50
    names: list[str] = []
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(full_data / "omniglot-py" / f"{name}.zip") as content:
            names += [path for path in content.namelist() if path.endswith(".png")]
    counts = {alphabet: sum(path.split("/")[1] == alphabet for path in names) for alphabet in drawings.alphabets}
    assert dict(zip(drawings.alphabets, np.bincount(drawings.alphabet), strict=True)) == counts
    assert len(np.unique(drawings.character)) == 1623
    assert np.bincount(drawings.character).tolist() == [20] * 1623
    keys = set(zip(drawings.character.tolist(), drawings.drawer.tolist(), strict=True))
    assert len(keys) == 32460
    shares = drawings.images / 255
    assert shares.mean() == pytest.approx(Omniglot.mean, abs=5e-4)
    assert shares.std() == pytest.approx(Omniglot.std, abs=5e-4)
    # One drawing against the zip: the 30,000th.
    with zipfile.ZipFile(full_data / "omniglot-py" / "images_evaluation.zip") as content:
        index = 30_000
        alphabet = drawings.alphabets[drawings.alphabet[index]]
        first = drawings.character[drawings.alphabet == drawings.alphabet[index]].min()
        character, drawer = drawings.character[index] - first + 1, drawings.drawer[index] + 1
        (path,) = [
            path
            for path in content.namelist()
            if f"/{alphabet}/character{character:02}/" in path and path.endswith(f"_{drawer:02}.png")
        ]
        image = Image.open(io.BytesIO(content.read(path))).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
        assert np.array_equal(255 - np.asarray(image), drawings.images[index])
    with pytest.raises(SystemExit) as stopped:
        main(["data", "verify", "omniglot", "--root", str(full_data)])
    assert not stopped.value.code
    assert "32,460 drawings of 1,623 characters in 50 alphabets" in capsys.readouterr().out
