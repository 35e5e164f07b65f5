"""Run folders of earlier versions, whose configs lack today's options: resumed, repeated and compared as before."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import yaml
from omegaconf import OmegaConf

from cl_powerprop import load_runs
from cl_powerprop.analysis import compare_runs
from cl_powerprop.checkpoint import FILE
from cl_powerprop.config import parse, repeatable_yaml
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.experiment import run

from .conftest import Command, Finished, tiny_config
from .test_resume import assert_same, config_of, cut_off, read_file

pytestmark = pytest.mark.slow

NAME = "naive-momentum-shared"
# All options of these sections that there were; others had the same ones.
KEPT = {
    "train": {"epochs", "batch_size", "eval_batch_size", "schedule", "warmup", "clip_norm", "threads"}
    | {"precision", "compile", "shift", "rotate"},
    "model": {"name", "alpha", "init_scale", "heads", "bias", "hidden"},
    "data": {"name", "root", "download"},
}


def before_sparse_training(config: str) -> str:
    """A config.yaml as the version wrote it that had no group `sparsity` and a section `pruning`."""
    values = yaml.safe_load(config)
    del values["sparsity"]
    for section, options in KEPT.items():
        assert options <= set(values[section]) | {"root"}  # which a checkpoint does not have
        values[section] = {option: value for option, value in values[section].items() if option in options}
    return yaml.safe_dump({**values, "pruning": None}, sort_keys=False)


def make_older(folder: Path) -> None:
    """Rewrite the files of a run as that version wrote them."""
    config = folder / "config.yaml"
    config.write_text(before_sparse_training(config.read_text()))
    if (folder / FILE).exists():
        state, tensors = read_file(folder / FILE)
        state["config"] = yaml.safe_load(before_sparse_training(yaml.safe_dump(state["config"])))
        safetensors.torch.save_file(tensors, folder / FILE, metadata={"state": json.dumps(state)})


def test_it_is_resumed(finished: Finished, tmp_path: Path, command: Command) -> None:
    with cut_off(task=2, epoch=0):
        run(config_of(NAME), tmp_path / "run")
    make_older(tmp_path / "run")
    assert command("resume", tmp_path / "run") == 0
    assert_same(tmp_path / "run", finished(NAME).path)


@pytest.mark.parametrize("section", ["model", "train"])
def test_another_value_of_a_new_option_is_a_change(
    tmp_path: Path, command: Command, caplog: pytest.LogCaptureFixture, section: str
) -> None:
    with cut_off(task=1, epoch=0):
        run(config_of(NAME), tmp_path / "run")
    make_older(tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config[section] |= {"model": {"init": "truncated_normal"}, "train": {"steps": 20}}[section]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    assert command("resume", tmp_path / "run") == 0
    assert f"has changed since the run began: {section}." in caplog.text


def test_it_is_repeated_and_both_are_one_run_to_a_comparison(tmp_path: Path, command: Command) -> None:
    run(tiny_config("strategy=naive", "benchmark.n_tasks=2"), tmp_path / "older")
    make_older(tmp_path / "older")
    again = ("repeat", "older")
    assert command(*again, "run_dir=newer") == 0
    assert Path("older/accuracy_matrix.csv").read_bytes() == Path("newer/accuracy_matrix.csv").read_bytes()
    assert "sparsity:" in Path("newer/config.yaml").read_text()
    comparison = compare_runs(load_runs(tmp_path))
    assert list(comparison.groups) == ["naive"]
    assert any("repeat the config and seed of another" in warning for warning in comparison.warnings)
    assert command(*again, "seed=1", "run_dir=other") == 0
    assert {label: len(runs) for label, runs in compare_runs(load_runs(tmp_path)).groups.items()} == {"naive": 2}


def test_its_help_is_shown(tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "older").mkdir()
    written = repeatable_yaml(tiny_config("strategy=naive"))
    (tmp_path / "older" / "config.yaml").write_text(before_sparse_training(written))
    assert command("run", "--config-dir", "older", "--config-name", "config", "--help") == 0
    assert "  epochs: 2  # per task" in capsys.readouterr().out


def test_a_pruning_experiment_says_what_it_is_now() -> None:
    values = yaml.safe_load(repeatable_yaml(tiny_config("strategy=naive")))
    del values["defaults"]
    with pytest.raises(ConfigurationError, match=r"a recipe now, `cl-powerprop run experiment=mnist_pruning`"):
        parse(OmegaConf.create(values | {"pruning": {"alphas": [1.0]}}))
