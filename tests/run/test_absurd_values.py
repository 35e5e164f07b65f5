"""Numbers that would ask for terabytes or years are one line, before memory or threads are taken."""

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cl_powerprop import run
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.limits import check_threads
from cl_powerprop.memory import gigabytes, machine_memory, too_large
from cl_powerprop.networks.blank import check_memory
from cl_powerprop.networks.build import build_model

from .conftest import clean_process  # noqa: F401 (a fixture)

SMALL = ["data=digits", "benchmark.n_tasks=2", "train.epochs=1", "progress=false", "strategy=naive"]
HUGE = 10**9


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.threads=1000000"], r"train.threads must be at most \d+ here, not 1000000: there are \d+ cores"),
        (["train.threads=0"], "train.threads must be at least 1, not 0"),
        ([f"benchmark.n_tasks={HUGE}"], "benchmark.n_tasks must be at most 10,000, not 1000000000"),
        (["benchmark=rotated", f"benchmark.n_tasks={HUGE}"], "benchmark.n_tasks must be at most 10,000"),
        ([f"model.hidden=[{HUGE}]"], r"model=mlp with [\d,]+ weights needs \d+ GB of memory, and this machine has"),
        ([f"model.hidden=[{HUGE},{HUGE}]"], "model=mlp"),
        (["model.hidden=[99999999999999999999]"], "model.hidden must be at most 1,000,000,000,000,000 either way"),
        ([f"model.hidden=[{10**15}]"], "model=mlp"),
        (["optimizer.lr=inf"], r"optimizer\.lr.* must be"),
        (["optimizer.lr=nan"], r"optimizer\.lr.* must be"),
        (["optimizer.lr=1e300"], "optimizer.lr must be at most 1,000,000,000,000,000,000 either way, not 1e"),
        (["optimizer.weight_decay=inf"], "optimizer.weight_decay must be"),
        (["optimizer.momentum=nan"], "optimizer.momentum must be"),
        (["strategy=epn", "strategy.gamma=nan"], "strategy.gamma must be"),
        (["strategy=packnet", "strategy.retrain_lr=inf"], "strategy.retrain_lr must be"),
        (["strategy=ewc", "strategy.penalty=inf"], "strategy.penalty must be"),
        (["train.clip_norm=inf"], "train.clip_norm must be a finite number, not inf"),
        (["checkpoint.every_seconds=inf"], "checkpoint.every_seconds must be a finite number, not inf"),
        ([f"train.epochs={10**23}", "train.batch_size=100000"], "train.epochs must be at most"),
        ([f"train.steps={10**23}"], "train.steps must be at most"),
        ([f"train.batch_size={10**400}"], "train.batch_size must be at most"),
        ([f"evaluation.every_steps={10**23}"], "evaluation.every_steps must be at most"),
        ([f"checkpoint.every_epochs={10**23}"], "checkpoint.every_epochs must be at most"),
        (["train.shift=1e308"], "train.shift must be at most"),
        (["model=resnet18", "model.width=1048576"], r"model=resnet18 with [\d,]+ weights needs"),
        (["model=convnet", "data=mnist5k", "model.width=1048576"], r"model=convnet with [\d,]+ weights needs"),
        (["model=wide_resnet", "model.widen_factor=1048576"], r"model=wide_resnet with [\d,]+ weights needs"),
        (["model=wide_resnet", "model.depth=6000004"], "up to 1204, not 6000004"),
        (["model.alpha=1e300"], "alpha must be at most 100, not 1e"),
        (
            ["benchmark=single", "sparsity=iterative", f"sparsity.rounds={HUGE}"],
            "sparsity.rounds must be from 1 to 1000",
        ),
        (["data=folder", f"data.workers={HUGE}", "benchmark=single"], "data.workers must be at most"),
        (["data=folder", f"data.size={HUGE}", "benchmark=single"], "data.size must be from 1 to 4096"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_absurd_value_is_one_line(overrides: list[str], said: str, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chosen = [value for value in SMALL if value.partition("=")[0] not in {each.partition("=")[0] for each in overrides}]
    if "benchmark=single" in overrides:
        chosen.remove("benchmark.n_tasks=2")
    with pytest.raises(ConfigurationError, match=said) as raised:
        run([*chosen, *overrides], tmp_path / "run", quiet=True)
    assert str(raised.value).isprintable()
    assert not (tmp_path / "run" / "run.json").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_a_batch_larger_than_the_data_trains_on_all_of_it_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = []
    for size in (1500, 10**12):  # there are 1,294 samples to train on
        options = [f"train.batch_size={size}", "train.eval_batch_size=1000000000000"]
        states.append(run([*SMALL, *options], tmp_path / str(size), quiet=True).model.state_dict())
        assert f"train.batch_size={size} is more than the" in caplog.text
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_measuring_a_network_changes_no_random_number() -> None:
    architecture: dict[str, Any] = {
        **{"name": "convnet", "sample_shape": [1, 16, 16], "classes": [2], "heads": "shared", "bias": "frozen"},
        **{"width": 4, "norm": "batch", "init_seed": 3},
    }
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    check_memory(architecture)
    assert torch.equal(torch.rand(3), expected)
    first = build_model(**architecture).state_dict()
    check_memory(architecture)
    second = build_model(**architecture).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_memory_is_counted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10**8 < machine_memory() < 10**14
    assert too_large(machine_memory()) == ""
    monkeypatch.setattr("cl_powerprop.memory.machine_memory", lambda: 8 * 10**9)
    assert too_large(4 * 10**12) == "4e+03 GB of memory, and this machine has 8 GB"
    assert gigabytes(16_300_000_000) == "16.3 GB"


def test_threads_may_be_those_of_a_larger_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    check_threads("threads", 256)
    with pytest.raises(ConfigurationError):
        check_threads("threads", 257)
    monkeypatch.setattr("os.cpu_count", lambda: 128)
    check_threads("threads", 512)


def test_a_model_of_ones_own_that_needs_values_is_left_to_its_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop.models.base import register_model
    from cl_powerprop.registry import _parts

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.rates = [value.item() for value in torch.linspace(0, 1, 3)]  # not possible on the meta device

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1)) * self.rates[1]  # type: ignore[no-any-return]

    monkeypatch.setitem(_parts, "model", dict(_parts["model"]))
    register_model("scaled")(lambda sample_shape, *, bias: Scaled())
    check_memory({"name": "scaled", "sample_shape": [1, 2, 2], "classes": [2], "heads": "shared", "bias": "none"})
