"""Each seed has the numbers of its run alone: to the bit where nothing is stacked, else but for rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cl_powerprop.experiment import run
from cl_powerprop.repeat import repeated_config
from cl_powerprop.seeds_together import run_together
from cl_powerprop.training.fast import FastSupervisedTemplate

from .conftest import KINDS, assert_close, digits, numbers, record

pytestmark = pytest.mark.slow


@pytest.mark.cuda
@pytest.mark.parametrize("kind", KINDS)
def test_each_run_is_that_of_its_seed_alone_to_the_bit(kind: str, taking_turns: list[int]) -> None:
    together = run_together(digits(*KINDS[kind], "seed=5", "seeds_together=3"), "together")
    assert taking_turns[:6] == [5, 6, 7, 5, 6, 7]
    for seed, result in zip((5, 6, 7), together, strict=True):
        alone = run(digits(*KINDS[kind], f"seed={seed}"), Path(f"alone_{seed}"))
        assert result.path == Path("together", f"seed_{seed}")
        assert numbers(result.path) == numbers(alone.path)
        assert result.record == record(result.path)
        assert (result.record["seeds_together"], alone.record["seeds_together"]) == (3, 1)
        for name, value in alone.model.state_dict().items():
            assert torch.equal(value, result.model.state_dict()[name])


@pytest.mark.parametrize("kind", ["naive", "packnet", "epn"])
def test_seeds_that_train_as_one_are_those_alone_but_for_rounding(kind: str, groups: list[list[int]]) -> None:
    words = (*KINDS[kind], "strategy.search=grid") if kind == "epn" else KINDS[kind]
    results = run_together(digits(*words, "seeds_together=3"), "together")
    assert groups == [[0, 1, 2]] * 6
    for seed, result in enumerate(results):
        alone = run(digits(*words, f"seed={seed}"), Path(f"alone_{seed}"))
        assert result.record["zero_forgetting_verified"] is (kind != "naive")
        assert_close(result.path, alone.path)


def test_a_run_repeats_itself_alone() -> None:
    run_together(digits("strategy=naive", "seeds_together=2"), "together")
    again = run(repeated_config(Path("together/seed_1"), ["run_dir=again"]))
    assert again.record["seed"] == 1
    assert again.record["seeds_together"] == 1


def test_global_draws_are_those_of_each_seed(taking_turns: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What draws from torch's own generator, as a user's plugin might, draws what it draws alone."""
    drawn: dict[str, list[float]] = {}
    train = FastSupervisedTemplate.training_epoch

    def training_epoch(self: FastSupervisedTemplate, **options: Any) -> None:
        train(self, **options)
        name = f"{'alone' if getattr(self, 'lockstep', None) is None else 'together'} {self.seed}"
        drawn.setdefault(name, []).append(float(torch.rand(())))

    monkeypatch.setattr(FastSupervisedTemplate, "training_epoch", training_epoch)
    run_together(digits("strategy=naive", "seeds_together=2"), "together")
    before = torch.random.get_rng_state()
    run_together(digits("strategy=naive", "seeds_together=2", "benchmark.n_tasks=2"), "other")
    assert torch.equal(before, torch.random.get_rng_state())
    for seed in (0, 1):
        run(digits("strategy=naive", f"seed={seed}"), Path(f"alone_{seed}"))
        assert drawn[f"together {seed}"][:6] == drawn[f"alone {seed}"]
    assert drawn["alone 0"] != drawn["alone 1"]


def test_images_are_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop import assemble, experiment

    places = []
    monkeypatch.setattr(
        experiment,
        "assemble",
        lambda config, sequence: (
            places.append(
                {
                    split.source.images.data_ptr()
                    for task in sequence.tasks
                    for split in (task.train, task.valid, task.test)
                }
            )
            or assemble.assemble(config, sequence)
        ),
    )
    run_together(digits("strategy=naive", "train.epochs=1", "seeds_together=3"), "together")
    assert len(places) == 3
    assert len(set.union(*places)) == 2  # of training and of testing


def test_each_seed_has_its_own_references(taking_turns: list[int]) -> None:
    words = ("strategy=naive", "references=[joint,untrained]")
    results = run_together(digits(*words, "seeds_together=2"), "group")
    for seed, result in enumerate(results):
        alone = run(digits(*words, f"seed={seed}", "references_dir=others"), Path(f"alone_{seed}"))
        assert result.record["metrics"] == alone.record["metrics"]
    assert len(list(Path("runs/references").iterdir())) == 4
