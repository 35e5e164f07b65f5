"""CIFAR-10 and CIFAR-100 on small files in the layout of the published ones."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl_powerprop import run
from cl_powerprop.assemble import load_sequence
from cl_powerprop.data.cifar import CIFAR, CIFAR10, CIFAR100
from cl_powerprop.data.pickled_arrays import read_pickled
from cl_powerprop.errors import DataError

from ..run.conftest import Command, clean_process, command, compose_config
from .cifar_files import (
    array,
    batch,
    labels,
    pickled,
    publish,
    small_files,
    small_images,
    small_labels,
    text,
    write,
)
from .test_fetch import Serve, serve

__all__ = ["clean_process", "command", "serve"]

KINDS = [CIFAR10, CIFAR100]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[CIFAR]:
    chosen: type[CIFAR] = request.param
    return chosen


@pytest.fixture
def files(kind: type[CIFAR]) -> dict[str, bytes]:
    return small_files(kind)


@pytest.fixture
def published(kind: type[CIFAR], files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The archive of the small files, which take the place of the published ones."""
    return publish(kind, monkeypatch, files)


@pytest.mark.parametrize("ours", KINDS)
def test_files_and_checksums_are_those_of_torchvision(ours: type[CIFAR]) -> None:
    import torchvision.datasets

    theirs = getattr(torchvision.datasets, ours.__name__)
    assert [list(pair) for pair in ours.train_files.items()] == theirs.train_list
    assert [list(pair) for pair in ours.test_files.items()] == theirs.test_list
    assert ours.other_files == {theirs.meta["filename"]: theirs.meta["md5"]}
    assert (ours.folder, ours.archive, ours.archive_md5) == (theirs.base_folder, theirs.filename, theirs.tgz_md5)
    assert ours.url + ours.archive == theirs.url


@pytest.mark.parametrize("where", ["folder", "archive"])
def test_images_and_labels_come_back(
    kind: type[CIFAR], files: dict[str, bytes], published: bytes, tmp_path: Path, where: str
) -> None:
    assert kind().status(tmp_path).startswith(f"missing in {tmp_path / kind.folder}: ")
    if where == "folder":
        write(kind, tmp_path, files)
    else:
        (tmp_path / kind.archive).write_bytes(published)
    assert kind().status(tmp_path) == f"present in {tmp_path / (kind.folder if where == 'folder' else kind.archive)}"
    images, count, batches = kind().read(tmp_path), 2 * kind.classes, len(kind.train_files)
    assert np.array_equal(images.train_images, np.concatenate([small_images(count, seed) for seed in range(batches)]))
    assert np.array_equal(images.test_images, small_images(count, batches))
    assert images.train_labels.tolist() == small_labels(kind, count) * batches
    assert images.test_labels.tolist() == small_labels(kind, count)
    assert images.train_labels.dtype == np.int64
    assert kind().verify(tmp_path) == f"{count * batches} training and {count} test images"
    if where == "archive":
        assert [path.name for path in tmp_path.iterdir()] == [kind.archive], "nothing is unpacked"


def test_torchvision_reads_the_same(
    kind: type[CIFAR], files: dict[str, bytes], published: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.datasets

    theirs = getattr(torchvision.datasets, kind.__name__)
    monkeypatch.setattr(theirs, "_check_integrity", lambda _: True)
    monkeypatch.setattr(theirs, "_load_meta", lambda _: None)
    write(kind, tmp_path, files)
    images = kind().read(tmp_path)
    for train in (True, False):
        other = theirs(tmp_path, train=train)
        mine, of_each = (
            (images.train_images, images.train_labels) if train else (images.test_images, images.test_labels)
        )
        assert np.array_equal(other.data.transpose(0, 3, 1, 2), mine)
        assert other.targets == of_each.tolist()


def test_an_altered_file_is_refused_before_it_is_read(
    kind: type[CIFAR], files: dict[str, bytes], published: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_read(_: bytes) -> None:
        pytest.fail("it was read")

    monkeypatch.setattr("cl_powerprop.data.cifar.read_pickled", not_read)
    write(kind, tmp_path, files)
    path = tmp_path / kind.folder / next(iter(kind.test_files))
    path.write_bytes(path.read_bytes() + b".")
    with pytest.raises(DataError, match=rf"{path} is truncated or altered \(the MD5 .* data download {kind.name}"):
        kind().read(tmp_path)
    path.unlink()
    archive = tmp_path / kind.archive
    archive.write_bytes(published + b"\0")
    with pytest.raises(DataError, match=rf"{archive} is truncated or altered \(its MD5 is not"):
        kind().read(tmp_path)
    archive.unlink()
    with pytest.raises(DataError, match=f"data={kind.name}: neither .* was found; `cl-powerprop data download"):
        kind().read(tmp_path)


def test_an_archive_that_lacks_a_file_is_refused(
    kind: type[CIFAR], files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = next(iter(kind.test_files))
    publish(kind, monkeypatch, files)
    checksums = dict(kind.test_files)
    shortened = {name: content for name, content in files.items() if name != lost}
    monkeypatch.setattr(kind, "test_files", {})
    (tmp_path / kind.archive).write_bytes(publish(kind, monkeypatch, shortened))
    monkeypatch.setattr(kind, "test_files", checksums)
    with pytest.raises(DataError, match=f"it lacks {lost}"):
        kind().read(tmp_path)


def test_download_fetches_unpacks_and_repairs(
    kind: type[CIFAR],
    files: dict[str, bytes],
    published: bytes,
    tmp_path: Path,
    serve: Serve,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror = serve(files={f"/{kind.archive}": published})
    monkeypatch.setattr(kind, "url", mirror.url)
    for _ in range(2):
        assert command("data", "download", kind.name, "--root", tmp_path) == 0
        assert f"{kind.name}: present in {tmp_path / kind.folder}" in capsys.readouterr().out
        assert len(mirror.requests) == 1, "whole files are not fetched again"
    assert {path.name: path.read_bytes() for path in (tmp_path / kind.folder).iterdir()} == files
    altered = tmp_path / kind.folder / next(iter(kind.train_files))
    altered.write_bytes(b"altered")
    assert command("data", "verify", kind.name, "--root", tmp_path) == 2
    kind().download(tmp_path)
    assert altered.read_bytes() == files[altered.name]
    assert len(mirror.requests) == 1, "the archive is there"
    (tmp_path / kind.archive).write_bytes(b"altered too")
    altered.unlink()
    kind().download(tmp_path)
    assert len(mirror.requests) == 2
    assert command("data", "verify", kind.name, "--root", tmp_path) == 0
    assert f"{kind.name}: whole, " in capsys.readouterr().out


IMAGES = small_images(10, 0)
NO_BATCH = {
    "no images": (pickled({b"labels": labels([0] * 10)}), "b'data'"),
    "no labels": (pickled({b"data": array(IMAGES.reshape(10, -1))}), "b'labels'"),
    "images that are a list": (pickled({b"data": labels([1]), b"labels": labels([0])}), "array"),
    "another size": (batch(IMAGES[:, :, :5], [0] * 10), "reshape"),
    "too few labels": (batch(IMAGES, [0] * 9), "10 images, 9 labels"),
    "a label beyond the classes": (batch(IMAGES, [0] * 9 + [10]), "10 images, 10 labels"),
    "a negative label": (batch(IMAGES, [0] * 9 + [-1]), "10 images, 10 labels"),
}


@pytest.mark.parametrize("name", NO_BATCH)
def test_a_file_with_other_content_is_one_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, said = NO_BATCH[name]
    files = small_files(CIFAR10) | {"test_batch": content}
    publish(CIFAR10, monkeypatch, files)
    write(CIFAR10, tmp_path, files)
    with pytest.raises(DataError, match=said) as caught:
        CIFAR10().read(tmp_path)
    assert "test_batch is truncated or altered" in str(caught.value)


def test_pickled_arrays_in_either_order() -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for fortran in (False, True):
        found = read_pickled(pickled({b"data": array(values, fortran=fortran), b"words": text(b"\xff")}))
        assert np.array_equal(found[b"data"].array(), values)
        assert found[b"words"] == b"\xff"


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> object:
        return self.call


SENTINEL: list[str] = []


def touch(word: str) -> None:
    SENTINEL.append(word)


HOSTILE = {
    "a call": pickle.dumps({"data": Call(touch, "called")}, protocol=2),
    "a call by name": pickle.dumps({"data": Call(touch, "called")}, protocol=4),
    "a class": pickle.dumps({"data": DataError("")}, protocol=2),
    "a module": b"\x80\x02}(U\x04datacos\nsystem\nU\x04trueq\x85Ru.",
    "an instance": b"(ios\nsystem\n.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent object": b"\x80\x02U\x01aQ.",
    "today's numpy": pickle.dumps({"data": np.zeros(3, object)}, protocol=2),
    "an array of objects": pickled({b"data": array(IMAGES[0], code=b"O8")}),
    "an array of other numbers": pickled({b"data": array(IMAGES[0], code=b"f8")}),
    "a larger shape": pickled({b"data": array(IMAGES[0]).replace(b"K\x03K K t", b"J\xff\xff\xff\x7fK K t")}),
    "a negative shape": pickled({b"data": array(IMAGES[0]).replace(b"K\x03K K t", b"J\xff\xff\xff\xffK K t")}),
    "a list": b"\x80\x02].",
    "nothing": b"",
    "a cut file": batch(IMAGES, [0] * 10)[:-20],
    "no pickle": b"\xff\xfe\xfd",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_but_arrays_is_unpickled(name: str) -> None:
    with pytest.raises(DataError, match=r"it is no pickle of arrays|not a dictionary"):
        read_pickled(HOSTILE[name])
    assert SENTINEL == []


def test_numbers_of_memory_places_cost_no_memory() -> None:
    """Python's own unpickler makes a table as long as the largest number."""
    content = pickled({b"data": text(b"x")}).replace(b"U\x01x", b"U\x01xr\xff\xff\xff\xff")
    assert read_pickled(content) == {b"data": b"x"}


def test_labels_that_are_nested_a_billion_times_are_not_unfolded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = b"]q\x00"  # each list holds the one before ten times
    for depth in range(1, 30):
        bomb += b"](" + (b"h" + bytes([depth - 1])) * 10 + b"eq" + bytes([depth])
    content = b"\x80\x02}(" + text(b"data") + array(IMAGES.reshape(10, -1))
    content += text(b"unused") + b"(" + bomb + b"t" + text(b"labels") + b"h\x1du."
    files = small_files(CIFAR10) | {"test_batch": content}
    publish(CIFAR10, monkeypatch, files)
    write(CIFAR10, tmp_path, files)
    with pytest.raises(DataError, match="labels are no whole numbers"):
        CIFAR10().read(tmp_path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_noise_in_a_pickle_is_read_or_one_line(data: st.DataObject) -> None:
    whole = batch(IMAGES[:1], [3])
    start = data.draw(st.integers(0, len(whole) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=20))
    told = "nothing"
    try:
        read_pickled(whole[:start] + noise + whole[start + len(noise) :])
    except DataError as error:
        told = str(error)
    assert told.isprintable()
    assert SENTINEL == []


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["split", "single", "permuted"])
def test_a_run(kind: type[CIFAR], files: dict[str, bytes], published: bytes, tmp_path: Path, benchmark: str) -> None:
    write(kind, tmp_path, files)
    words = (f"data={kind.name}", f"data.root={tmp_path}", f"benchmark={benchmark}", "model=convnet", "model.width=4")
    tasks = () if benchmark == "single" else ("benchmark.n_tasks=2",)
    config = compose_config(
        *words, *tasks, "strategy=naive", "train.epochs=1", "benchmark.validation=0.2", "progress=false"
    )
    result = run(config, tmp_path / "run")
    record = json.loads((result.path / "run.json").read_text())
    assert (record["status"], record["data_verified"]) == ("complete", True)
    task = load_sequence(config, torch.device("cpu")).tasks[0]
    assert task.train.shape == (3, 32, 32)
    assert task.classes == (kind.classes // 2 if benchmark == "split" else kind.classes)
