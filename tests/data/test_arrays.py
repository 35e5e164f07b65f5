"""data=arrays: an .npz file of one's own."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl_powerprop import run
from cl_powerprop.assemble import load_sequence
from cl_powerprop.data.arrays import Arrays, ArraysConfig
from cl_powerprop.errors import ConfigurationError, DataError

from ..run.conftest import Command, clean_process, command, compose_config

__all__ = ["clean_process", "command"]

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 5, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (40, 3, 5, 6), dtype=np.uint8)
LABELS = np.arange(40, dtype=np.int32) % 4


def arrays(**changes: Any) -> dict[str, Any]:
    given = {"train_images": GREY, "train_labels": LABELS, "test_images": GREY[:8], "test_labels": LABELS[:8]}
    return {name: array for name, array in (given | changes).items() if array is not None}


def write(root: Path, **changes: Any) -> None:
    np.savez(root / "my.npz", **arrays(**changes))


def read(root: Path, **options: Any) -> Any:
    return Arrays().images(root, ArraysConfig(**({"name": "arrays", "file": "my.npz"} | options)))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "my.npz", other=np.zeros(3), **arrays(train_images=COLOUR, test_images=COLOUR[:8]))
    images = read(tmp_path)
    assert np.array_equal(images.train_images, COLOUR)
    assert np.array_equal(images.test_images, COLOUR[:8])
    assert images.train_labels.dtype == images.test_labels.dtype == np.int64
    assert images.train_labels.tolist() == LABELS.tolist()
    assert images.classes == 4


def test_fortran_order_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path, train_images=np.asfortranarray(GREY))
    assert np.array_equal(read(tmp_path).train_images, GREY)


def test_without_test_images_every_fifth_image_of_a_class_is_one(tmp_path: Path) -> None:
    write(tmp_path, test_images=None, test_labels=None)
    images = read(tmp_path)
    test = [row for row in range(40) if (row // 4) % 5 == 4]
    assert np.array_equal(images.test_images, GREY[test])
    assert np.array_equal(images.train_images, np.delete(GREY, test, axis=0))
    assert len(images.train_labels) == 32


@pytest.mark.parametrize("benchmark", ["single", "split", "permuted", "rotated"])
def test_sequences_take_them_with_their_own_classes_mean_and_deviation(tmp_path: Path, benchmark: str) -> None:
    write(tmp_path, train_images=COLOUR, test_images=COLOUR[:8])
    tasks = "1" if benchmark == "single" else "2"
    words = (f"benchmark={benchmark}", f"benchmark.n_tasks={tasks}", "data=arrays", "data.file=my.npz")
    config = compose_config(*words, f"data.root={tmp_path}", "benchmark.validation=0.25")
    config.check()
    sequence = load_sequence(config, torch.device("cpu"))
    assert sequence.sample_shape == (3, 5, 6)
    assert sequence.classes == {"single": (4,), "split": (2, 2)}.get(benchmark, (4, 4))
    if benchmark == "single":
        scaled = COLOUR / 255.0
        expected = (scaled - scaled.mean((0, 2, 3), keepdims=True)) / scaled.std((0, 2, 3), keepdims=True)
        task = sequence.tasks[0]
        np.testing.assert_allclose(task.train.images().numpy(), expected[task.train.rows], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(task.test.images().numpy(), expected[:8], rtol=1e-4, atol=1e-5)


def test_too_many_tasks_for_the_classes_are_one_error(tmp_path: Path) -> None:
    write(tmp_path)
    config = compose_config("benchmark=split", "data=arrays", "data.file=my.npz", f"data.root={tmp_path}")
    with pytest.raises(ConfigurationError, match="4 classes cannot be divided over 5 tasks"):
        load_sequence(config, torch.device("cpu"))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"train_labels": None}, "it holds train_images, test_images, test_labels; it needs train_images and"),
    "half a test set": ({"test_labels": None}, "test_images with test_labels or neither"),
    "floats": ({"train_images": GREY / 255}, "train_images are float64; they must be uint8, from 0 to 255"),
    "vectors": ({"train_images": GREY.reshape(40, -1)}, r"train_images have the shape \[40, 30\]; they must be \[n"),
    "channels last": ({"train_images": COLOUR.transpose(0, 2, 3, 1)}, r"channels last; images.transpose\(0, 3, 1, 2\)"),
    "no image": ({"train_images": GREY[:0], "train_labels": LABELS[:0]}, r"have the shape \[0, 5, 6\]"),
    "other test images": ({"test_images": COLOUR[:8]}, "training and test images differ in their shape"),
    "float labels": ({"train_labels": LABELS / 1.0}, r"train_labels are float64 \[40\]; they must be a whole number"),
    "one-hot labels": ({"train_labels": np.eye(4, dtype=int)[LABELS]}, r"train_labels are int64 \[40, 4\]"),
    "too few labels": ({"test_labels": LABELS[:7]}, r"test_labels are int32 \[7\]; they must .* each of 8 images"),
    "labels from 1": ({"train_labels": LABELS + 1}, "4 different labels from 1 to 4; labels must count from 0"),
    "a gap": ({"train_labels": LABELS * 2}, "4 different labels from 0 to 6; labels must count from 0"),
    "negative labels": ({"train_labels": LABELS - 1}, "4 different labels from -1 to 2; labels must count from 0"),
    "an unknown class": ({"test_labels": LABELS[:8] + 3}, "a test image has label 4, which no training image has"),
    "few images": (
        {"train_images": GREY[:8], "train_labels": LABELS[:8], "test_images": None, "test_labels": None},
        "no class has the five images",
    ),
    "objects": ({"train_images": np.array([print, 1], dtype=object)}, "train_images are object; they must be uint8"),
    "label objects": ({"train_labels": LABELS.astype(object)}, r"train_labels are object \[40\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    changes, said = BAD[name]
    write(tmp_path, **changes)
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"data=arrays: {tmp_path / 'my.npz'} cannot be used: ")
    assert str(caught.value).count("cannot be used") == 1
    assert "\n" not in str(caught.value)


def forged(root: Path, shape: tuple[int, ...], name: str = "train_images") -> None:
    """A small file with an array whose header claims the shape."""
    with zipfile.ZipFile(root / "my.npz", "w") as content:
        for key, array in arrays(test_images=None, test_labels=None).items():
            buffer = io.BytesIO()
            if key == name:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(buffer, header)
            else:
                np.lib.format.write_array(buffer, array)
            content.writestr(f"{key}.npy", buffer.getvalue())


@pytest.mark.parametrize("shape", [(40, 10**6, 10**6), (40, 2**40, 2**40)])
def test_a_size_that_is_only_claimed_makes_no_array(
    tmp_path: Path, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    forged(tmp_path, shape)

    def none_is_made(*_: object, **__: object) -> None:
        pytest.fail("an array was made")

    monkeypatch.setattr(np.lib.format, "read_array", none_is_made)
    with pytest.raises(DataError, match=r"its arrays take .* GB; data\.memory_gb allows 8"):
        read(tmp_path)
    forged(tmp_path, (40, -5, -6))
    with pytest.raises(DataError, match=r"have the shape \[40, -5, -6\]"):
        read(tmp_path)


def test_a_file_that_is_cut_or_no_npz_is_one_error(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "my.npz"
    whole = path.read_bytes()
    corrupt = bytearray(whole)
    corrupt[300] ^= 1
    for damaged in (whole[:-30], b"", b"PK", bytes(corrupt)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be used"):
            read(tmp_path)
    forged(tmp_path, (40, 5, 6))
    with pytest.raises(DataError, match="cannot be used"):
        read(tmp_path)


def test_options_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    for words, said in (
        (["data.file=/home/me/my.npz"], "must be relative to the data folder"),
        (["data.file=../my.npz"], "must be relative to the data folder"),
        (["data.file=my.npz", "data.memory_gb=0"], "data.memory_gb must be > 0"),
        (["data.file=my.npz", "benchmark=omniglot"], "data=arrays does not say who drew"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            compose_config("data=arrays", *words).check()
    with pytest.raises(DataError, match=r"no\.npz was not found; data\.file is relative to data\.root"):
        read(tmp_path, file="no.npz")


def test_a_run_on_arrays_says_that_nothing_is_verified(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, train_images=COLOUR, test_images=COLOUR[:8])
    words = ("benchmark=single", "data=arrays", "data.file=my.npz", f"data.root={tmp_path}", "model.hidden=[8]")
    result = run(compose_config(*words, "train.epochs=1", "progress=false"), tmp_path / "run")
    record = json.loads((result.path / "run.json").read_text())
    assert record["data_verified"] is False
    assert "data=arrays is not verified" in caplog.text
    assert str(tmp_path) not in (result.path / "config.yaml").read_text()


def test_the_data_command_says_whose_file_it_is(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("status", "download"):
        assert command("data", action, "arrays") == 0
        assert "arrays: images of your own" in capsys.readouterr().out
    assert command("data", "verify", "arrays") == 0
    assert "is checked when it is read" in capsys.readouterr().out
