"""Model files that are damaged or hostile: each is refused in one line, in little time and memory."""

import gc
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cl_powerprop import memory
from cl_powerprop.errors import DataError
from cl_powerprop.networks.build import build_model
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.saving import BEFORE, load, save, write_tensors
from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.sparsity.mask_coding import decode_masks
from cl_powerprop.tensor_file import read_tensors

from .tensor_files import LENGTH, header_and_data, write_raw

ARCHITECTURE: dict[str, Any] = {
    **{"name": "convnet", "sample_shape": [1, 16, 16], "classes": [3, 2], "heads": "per_task", "bias": "per_task"},
    **{"alpha": 2.0, "reparam": "powerprop", "init_scale": 1.0, "init": "default", "init_seed": 1, "width": 4},
    **{"norm": "batch", "independent": False},
}
SECONDS = 20  # far more than any file takes on a busy machine, and far less than one that is not refused


def masked_file(path: Path, **options: Any) -> Path:
    """A model of two tasks with masks."""
    architecture = ARCHITECTURE | options
    model = build_model(**architecture)
    allocator = MaskAllocator(model, "per_task", exclude=(TaskHeads,))
    for task in range(2):
        draws = generator(task, "test")
        allocator.begin_task(draws)
        allocator.propose(
            {name: torch.rand(w.owner.shape, generator=draws) < 0.5 for name, w in allocator.weights.items()}
        )
        allocator.end_task()
    save(model, path, architecture=architecture, masked={"unmasked": "per_task"}, n_tasks=2)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked_file(tmp_path_factory.mktemp("models") / "model.safetensors")


def refused(path: Path) -> str:
    """Return the one line by which a file is refused."""
    start = time.perf_counter()
    with pytest.raises(DataError) as raised:
        load(path)
    assert time.perf_counter() - start < SECONDS
    message = str(raised.value)
    assert message.isprintable(), "one line, without control characters"
    assert str(path) in message
    assert len(message) < len(str(path)) + 300
    return message


def described(whole: Path, path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a whole file with another description."""
    header, data = header_and_data(whole)
    description = json.loads(header["__metadata__"]["description"])
    changed = change(description)
    header["__metadata__"] = {
        "format": header["__metadata__"]["format"],
        "description": changed if isinstance(changed, str) else json.dumps(description),
    }
    return write_raw(path, header, data)


def architecture(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda description: description["architecture"].update(changes)


DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a billion tasks": lambda description: description.update(n_tasks=10**9),
    "a task too many": lambda description: description.update(n_tasks=3),
    "a task too few": lambda description: description.update(n_tasks=1),
    "-1 tasks": lambda description: description.update(n_tasks=-1),
    "true tasks": lambda description: description.update(n_tasks=True),
    "1.5 tasks": lambda description: description.update(n_tasks=1.5),
    "no tasks": lambda description: description.pop("n_tasks"),
    "more fields": lambda description: description.update(more=1),
    "a text": lambda _: '"text"',
    "nothing": lambda _: "null",
    "no JSON": lambda _: "{",
    "deep nesting": lambda _: "[" * 100_000,
    "a key twice": lambda description: json.dumps(description)[:-1] + ', "n_tasks": 2}',
    "NaN": lambda description: json.dumps(description).replace("2.0", "NaN"),
    "1e999": lambda description: json.dumps(description).replace("2.0", "1e999"),
    "an endless number": lambda description: json.dumps(description).replace("2.0", "9" * 100_000),
    "no architecture": lambda description: description.update(architecture=None),
    "masks of a sort": lambda description: description.update(masked={"unmasked": "all"}),
    "masks and more": lambda description: description.update(masked={"unmasked": "frozen", "exclude": []}),
    "no masks": lambda description: description.update(masked=None),
    "an unknown model": architecture(name="os.system"),
    "a model without a name": lambda description: description["architecture"].pop("name"),
    "a list for a name": architecture(name=["mlp"]),
    "another model": architecture(name="mlp"),
    "an unknown option": architecture(hidden=[3]),
    "no width": lambda description: description["architecture"].pop("width"),
    "a wide network": architecture(width=10**9),
    "a wider network": architecture(width=2**62),
    "a network of width 0": architecture(width=0),
    "a width of 4.0": architecture(width=4.0),
    "alpha 0.5": architecture(alpha=0.5),
    "alpha -1": architecture(alpha=-1),
    "alpha 1e300": architecture(alpha=1e300),
    "another alpha": architecture(alpha=3.0),
    "a text as alpha": architecture(alpha="2.0"),
    "huge samples": architecture(sample_shape=[10**9, 10**9, 10**9]),
    "no samples": architecture(sample_shape=[]),
    "negative samples": architecture(sample_shape=[1, -16, 16]),
    "no classes": architecture(classes=[]),
    "a billion classes": architecture(classes=[10**9, 2]),
    "a million tasks": architecture(classes=[2] * 10**6),
    "a negative seed": architecture(init_seed=-1),
    "a huge seed": architecture(init_seed=2**64),
    "separate networks": architecture(independent=True),
    "yes": architecture(independent="yes"),
    "shared heads": architecture(heads="shared"),
    "unknown heads": architecture(heads="none at all"),
    "init_scale -1": architecture(init_scale=-1.0),
    "a deep network": lambda description: description.update(
        architecture={**wide_resnet(description["architecture"]), "depth": 6 * 10**6 + 4, "widen_factor": 1}
    ),
    "a hidden layer of layers": lambda description: description.update(
        architecture={**mlp(description["architecture"]), "hidden": [1] * 10**6}
    ),
    "a thousand layers": lambda description: description.update(
        architecture={**mlp(description["architecture"]), "hidden": [1] * 1000}
    ),
    "ten thousand separate networks": architecture(classes=[2] * 10_000, independent=True),
    "a hidden layer of text": lambda description: description.update(
        architecture={**mlp(description["architecture"]), "hidden": ["1"]}
    ),
}


def wide_resnet(known: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in known.items() if key != "width"} | {"name": "wide_resnet"}


def mlp(known: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in known.items() if key not in ("width", "norm")} | {"name": "mlp"}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_an_impossible_description_is_one_line(whole: Path, tmp_path: Path, name: str) -> None:
    refused(described(whole, tmp_path / "model.safetensors", DESCRIPTIONS[name]))


def test_the_unchanged_description_is_accepted(whole: Path, tmp_path: Path) -> None:
    """What the changes above are made to is whole, also without a checksum, as files of earlier versions are."""
    assert load(described(whole, tmp_path / "model.safetensors", lambda _: None)).n_tasks == 2


def test_no_memory_is_taken_for_a_file_that_is_refused(whole: Path, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("a wide network", "a billion classes", "huge samples"):
        refused(described(whole, tmp_path / "model.safetensors", DESCRIPTIONS[name]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def entry(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(changes)


WEIGHT = "features.0.parametrizations.weight.original"
MASKED = "features.0.parametrizations.weight.0"
MASKS = f"{MASKED}.coded_masks"
HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another dtype": entry(WEIGHT, dtype="I32"),
    "an unknown dtype": entry(WEIGHT, dtype="F4"),
    "another shape": entry(WEIGHT, shape=[36]),
    "a huge shape": entry(WEIGHT, shape=[10**9, 10**9]),
    "a negative shape": entry(WEIGHT, shape=[-4, -1, 3, 3]),
    "a shape of floats": entry(WEIGHT, shape=[4.0, 1, 3, 3]),
    "a shape of bools": entry(WEIGHT, shape=[4, True, 3, 3]),
    "a text for a shape": entry(WEIGHT, shape="4133"),
    "offsets the wrong way round": entry(WEIGHT, data_offsets=[144, 0]),
    "offsets before the file": entry(WEIGHT, data_offsets=[-144, 0]),
    "offsets behind the file": entry(WEIGHT, data_offsets=[10**15, 10**15 + 144]),
    "one offset": entry(WEIGHT, data_offsets=[0]),
    "more in an entry": entry(WEIGHT, more=1),
    "masks of two dimensions": entry(MASKS, shape=[2, 10]),
    "no tensor": lambda header: header.pop(WEIGHT),
    "an entry of another sort": lambda header: header.update({WEIGHT: [1]}),
    "an empty tensor more": lambda header: header.update(more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    "too many tensors": lambda header: header.update(
        {str(index): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(250_000)}
    ),
    "no metadata": lambda header: header.pop("__metadata__"),
    "metadata of another sort": lambda header: header.update(__metadata__={"format": 1}),
    "a list": lambda header: json.dumps(list(header)).encode(),
    "a key twice": lambda header: json.dumps(header)[:-1].encode() + b', "__metadata__": {}}',
    "no UTF-8": lambda header: json.dumps(header).encode().replace(b"features", b"featur\xff\xff"),
    "deep nesting": lambda _: b"[" * 1_000_000,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "mlp", "hidden": [1] * 50_000},
        {"name": "mlp", "hidden": [1] * 1000, "independent": True, "classes": [2] * 10_000},
        {"classes": [2] * 10**5},
        {"classes": [2] * 9000, "independent": True},
        {"name": "wide_resnet", "depth": 1204, "widen_factor": 1, "independent": True, "classes": [2] * 10_000},
    ],
    ids=["layers", "layers and networks", "heads", "networks", "deep networks"],
)
@pytest.mark.parametrize("empty", [10, 100_000])
def test_empty_tensors_do_not_stand_for_layers(
    whole: Path, tmp_path: Path, changes: dict[str, Any], empty: int
) -> None:
    """They cost nothing in a file, and building a network of as many layers would take minutes."""
    header, data = header_and_data(whole)
    description = json.loads(header["__metadata__"]["description"])
    known = description["architecture"]
    left_out = {"mlp": ("width", "norm"), "wide_resnet": ("width",)}.get(changes.get("name", ""), ())
    description["architecture"] = {key: value for key, value in known.items() if key not in left_out} | changes
    header["__metadata__"]["description"] = json.dumps(description)
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [len(data), len(data)]}
    header |= dict.fromkeys(map(str, range(empty)), nothing)
    header["__metadata__"].pop("sha256", None)
    gc.freeze()  # collections shall not go through what earlier tests have left
    start = time.process_time()
    refused(write_raw(tmp_path / "model.safetensors", header, data))
    taken = time.process_time() - start
    gc.unfreeze()
    assert taken < SECONDS / 4


@pytest.mark.parametrize("name", HEADERS)
def test_an_impossible_header_is_one_line(whole: Path, tmp_path: Path, name: str) -> None:
    header, data = header_and_data(whole)
    changed = HEADERS[name](header)
    refused(write_raw(tmp_path / "model.safetensors", changed if isinstance(changed, bytes) else header, data))


def test_every_flipped_bit_of_the_checksum_is_found(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    assert content.index(b"format") < 130, "the checksum stands before it"
    for place in range(130):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        (tmp_path / "model.safetensors").write_bytes(changed)
        refused(tmp_path / "model.safetensors")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_found(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Anywhere: in the header by what it must be, in the tensors by the checksum."""
    content = bytearray(whole.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path / "model.safetensors")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_header_with_any_bytes_is_one_line(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(whole.read_bytes())
    length = LENGTH + int.from_bytes(content[:LENGTH], "little")
    start = data.draw(st.integers(0, length - 1))
    replaced = data.draw(st.binary(min_size=1, max_size=200))
    changed = bytes(content[:start]) + replaced + bytes(content[start + len(replaced) :])
    if changed != bytes(content):
        (tmp_path / "model.safetensors").write_bytes(changed)
        refused(tmp_path / "model.safetensors")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0.0, 1.0, exclude_max=True), more=st.binary(max_size=20))
def test_a_file_of_another_length_is_one_line(whole: Path, tmp_path: Path, share: float, more: bytes) -> None:
    content = whole.read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: int(share * len(content))])
    refused(tmp_path / "model.safetensors")
    if more:
        (tmp_path / "model.safetensors").write_bytes(content + more)
        refused(tmp_path / "model.safetensors")


VALUES: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "not finite": lambda state: state[WEIGHT].view(-1)[3].fill_(float("nan")),
    "infinite": lambda state: state[WEIGHT].view(-1)[3].fill_(float("inf")),
    "the mask of task 1 is empty": lambda state: [
        value[1].zero_() for name, value in state.items() if name.endswith(".masks")
    ],
    "more bits": lambda state: state[f"{MASKED}.masks"][0, -1].fill_(255),
    "negative variances": lambda state: next(
        value for name, value in state.items() if "running_var" in name and name.endswith("values")
    ).fill_(-1.0),
    "alpha=3": lambda state: state[f"{MASKED}.alpha"].fill_(3.0),
    "is torch.float64|is F64": lambda state: state.update({WEIGHT: state[WEIGHT].double()}),
    "unknown tensor": lambda state: state.update(more=torch.zeros(3)),
    "is missing": lambda state: state.pop(WEIGHT),
}


def of_version_0_1(whole: Path, path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """A whole file as earlier versions wrote it, with one bit for each weight and task, and a change."""
    state, metadata = read_tensors(whole)
    for name in [name for name in state if name.endswith(".coded_masks")]:
        shape = state[name.replace("0.coded_masks", "original")].shape
        state[name.replace("coded_masks", "masks")] = decode_masks(state.pop(name), shape, 2)
    change(state)
    write_tensors(path, state, {"format": BEFORE, "description": metadata["description"]})
    return path


def test_files_of_earlier_versions_load(whole: Path, tmp_path: Path) -> None:
    images = torch.randn(2, 1, 16, 16, generator=generator(0, "images"))
    now, before = load(whole), load(of_version_0_1(whole, tmp_path / "model.safetensors", lambda _: None))
    for task in range(2):
        assert torch.equal(now(images, task), before(images, task))


CODED: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "compressed masks end in the middle": lambda state: state.update({MASKS: state[MASKS][:-1]}),
    "compressed masks are longer": lambda state: state.update({MASKS: state[MASKS].repeat(3)}),
    "compressed masks are damaged": lambda state: state.update({MASKS: torch.full((16,), 255, dtype=torch.uint8)}),
    "the mask of task 0 is empty": lambda state: state.update(
        {name: value[:0] for name, value in state.items() if name.endswith("coded_masks")}
    ),
    "is U8 [2, 8], not torch.uint8 [16]": lambda state: state.update({MASKS: state[MASKS].view(2, -1)}),
    "is F32": lambda state: state.update({MASKS: torch.zeros(10)}),
    "coded_masks is missing": lambda state: state.pop(MASKS),
    "unknown tensor": lambda state: state.update({f"{MASKED}.masks": torch.zeros(2, 5, dtype=torch.uint8)}),
}


@pytest.mark.parametrize("said", CODED)
def test_impossible_compressed_masks_are_one_line(whole: Path, tmp_path: Path, said: str) -> None:
    state, metadata = read_tensors(whole)
    CODED[said](state)
    path = tmp_path / "model.safetensors"
    write_tensors(path, state, {key: metadata[key] for key in ("format", "description")})
    assert said in refused(path)


def test_masks_that_need_more_memory_than_there_is_are_one_line(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed masks are small in the file, and what they decode to is known before they are decoded."""
    size = sum(value.nbytes for value in read_tensors(whole)[0].values())
    monkeypatch.setattr(memory, "machine_memory", lambda: size + 10)
    with pytest.raises(DataError, match=r"its masks need .* of memory"):
        load(whole)
    monkeypatch.setattr(memory, "machine_memory", lambda: 2 * size)
    assert load(whole).n_tasks == 2


@pytest.mark.parametrize("said", VALUES)
def test_impossible_values_are_one_line(whole: Path, tmp_path: Path, said: str) -> None:
    message = refused(of_version_0_1(whole, tmp_path / "model.safetensors", VALUES[said]))
    assert any(part in message for part in said.split("|")) or "infinite" in said


def test_what_is_no_file_is_one_line(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.symlink_to(whole)
    assert "link" in refused(path)
    path.unlink()
    os.mkfifo(path)
    assert "not a file" in refused(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "link" in refused(path)
    path.unlink()
    path.symlink_to(tmp_path / "nothing")
    assert "link" in refused(path)
    path.unlink()
    path.write_bytes(b"")
    refused(path)
    with path.open("wb") as file:
        file.truncate(10 * 10**9)
    refused(path)
    path.write_bytes(whole.read_bytes())
    with path.open("r+b") as file:
        file.truncate(10 * 10**9)
    refused(path)
