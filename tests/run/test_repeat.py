"""`cl-powerprop repeat`: the config of a run folder, also a stranger's, run again; nothing of it is executed."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_powerprop.config import repeatable_yaml
from cl_powerprop.errors import ConfigurationError, UserError
from cl_powerprop.repeat import repeated_config
from cl_powerprop.stored_config import load_config

from .conftest import Command, tiny_config, tree

CONFIG = repeatable_yaml(tiny_config("strategy=naive"))


def store(folder: str, text: str = CONFIG, changed: dict[Any, Any] | None = None) -> Path:
    """A folder with a config, some of whose values are others."""
    Path(folder).mkdir(parents=True)
    if changed:
        text = yaml.safe_dump({**yaml.safe_load(text), **changed}, sort_keys=False)
    Path(folder, "config.yaml").write_text(text)
    return Path(folder)


@pytest.mark.slow
def test_a_run_is_repeated_and_options_changed(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("data=digits", "strategy=naive", "benchmark.n_tasks=1", "train.epochs=1", "progress=false")
    assert command("run", *quick, "run_dir=-a; touch executed") == 0
    first = Path("-a; touch executed")
    assert command("repeat", "run_dir=again", "--", first) == 2, "the folder comes first"
    assert command("repeat", "--", first, "run_dir=again") == 0
    assert tree(Path("again"))["accuracy_matrix.csv"] == tree(first)["accuracy_matrix.csv"]
    capsys.readouterr()
    assert command("repeat", "again", "run_dir=again") == 0
    assert "again: complete" in capsys.readouterr().out
    assert command("repeat", "again", "seed=1", "run_dir=again") == 2
    assert "seed was 0 and is 1" in capsys.readouterr().err
    assert command("repeat", "again", "seed=1", "model.hidden=[5]", "logger=[]") == 0
    (new,) = Path("runs").glob("*/*")
    assert load_config(new).seed == 1
    assert not Path("executed").exists()


def test_words_are_values_of_options() -> None:
    folder = store("run")
    words = ("seed=3", "model.hidden=[7,7]", "run_dir=20240101_1200", "train.steps=null", "naive.retrain_epochs=1")
    config = repeated_config(folder, words[:-1])
    assert (config.seed, config.model.hidden, config.run_dir) == (3, [7, 7], "20240101_1200")  # type: ignore[attr-defined]
    assert repeated_config(folder, ()).run_dir.startswith("runs/")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=1,2", "several values"),
        ("seed=choice(1,2)", "several values"),
        ("seed=range(3)", "several values"),
        ("strategy=epn", "has the parts that it had"),
        ("logger=[wandb]", "has the loggers that it had"),
        ("+seed=1", "give OPTION=VALUE"),
        ("~seed", "give OPTION=VALUE"),
        ("model@hydra.x=mlp", "give OPTION=VALUE"),
        ("seed=x", "could not be converted"),
        ("seed", "an option is given as"),
        ("nope=1", "unknown option"),
        ("train.epochs.x=1", "has no options"),
        ("run_dir=${oc.env:SECRET}", "looked up elsewhere"),
        ("hydra.job.chdir=true", "could run code"),
        ("model._target_=os.system", "could run code"),
    ],
)
def test_words_that_are_no_values_are_one_line(word: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "swordfish")
    with pytest.raises(ConfigurationError, match=said) as refused:
        repeated_config(store("run"), [word])
    assert "\n" not in str(refused.value)
    assert "swordfish" not in str(refused.value)


POPEN = {"_target_": "psutil.Popen", "args": ["touch", "executed"]}
HOSTILE: dict[str, dict[Any, Any]] = {
    "callback": {"hydra": {"callbacks": {"x": POPEN}}},
    "upper-case": {"Hydra": {"callbacks": {"x": POPEN}}},
    "group-of-hydra": {"hydra/launcher": "x"},
    "target": {"model": {"name": "mlp", **POPEN}},
    "target-deep": {"logger": {"wandb": {"x": [POPEN]}}},
    "partial": {"train": {"_partial_": True}},
    "defaults": {"defaults": ["base", {"override /hydra/launcher": "basic"}, "_self_"]},
    "other-defaults": {"defaults": ["run", "_self_"]},
    "environment": {"references_dir": "${oc.env:SECRET}"},
    "environment-in-run-dir": {"run_dir": "runs/${oc.env:SECRET}"},
    "by-another": {"seed": "${model.alpha}"},
    "name": {"${oc.env:SECRET}": 1},
    "number": {7: 1},
    "set": {"references": {"joint", "untrained"}},
    "bytes": {"train": {"epochs": b"x"}},
    "unknown": {"sted": 0},
    "wrong-type": {"train": [1]},
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_strangers_config_does_nothing(
    name: str, command: Command, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("SECRET", "swordfish")
    folder = store("theirs", changed=HOSTILE[name])
    for read in (load_config, lambda folder: repeated_config(folder, ())):
        with pytest.raises(UserError) as refused:
            read(folder)
        assert "swordfish" not in str(refused.value)
    assert command("repeat", folder, "run_dir=run") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path("executed").exists()
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "a: [",
        "\x00",
        "a: &a 1\nb: *a\n",
        "a: " + "[" * 500 + "]" * 500,
        "a: " + "x" * 5000,
        "# " + "x" * 2**19,
        CONFIG[: len(CONFIG) // 2],
        CONFIG.replace("seed: 0", "seed: !!python/object/apply:os.system ['touch executed']"),
        CONFIG.replace("seed: 0", "seed: !!python/name:os.system"),
        CONFIG.replace("seed: 0", "seed: !!timestamp 2001-01-01"),
        CONFIG.replace("seed: 0", "seed: " + "9" * 5000),
        CONFIG.replace("seed: 0", "seed: .nan"),
        CONFIG.replace("seed: 0", "seed: 1\nseed: 2"),
        CONFIG + "---\n" + CONFIG,
        CONFIG.replace("name: mlp", "name: \udcff".encode("utf-8", "surrogateescape").decode("latin-1")),
    ],
    ids=lambda text: ascii(text[:30] + text[-30:]),
)
def test_a_file_that_is_no_config_is_one_line(text: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(store("theirs", text.replace("\udcff", "?")))
    assert "\n" not in str(refused.value)
    assert not Path("executed").exists()


def test_links_pipes_and_folders_are_not_read() -> None:
    folder = store("theirs")
    (folder / "config.yaml").rename("elsewhere.yaml")
    (folder / "config.yaml").symlink_to(Path("elsewhere.yaml").absolute())
    with pytest.raises(ConfigurationError, match="symbolic link"):
        load_config(folder)
    (folder / "config.yaml").unlink()
    os.mkfifo(folder / "config.yaml")
    with pytest.raises(ConfigurationError, match="is not a file"):
        load_config(folder)
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir()
    with pytest.raises(ConfigurationError, match="is not a file"):
        load_config(folder)


def test_no_place_outside_of_the_working_folder_is_taken_from_a_file() -> None:
    text = repeatable_yaml(tiny_config("strategy=naive", "logger=[wandb]"))
    values = yaml.safe_load(text)
    changed = {
        "run_dir": "../x",
        "references_dir": "/home/me/.config",
        "data": values["data"] | {"root": "/etc"},
        "logger": {"wandb": values["logger"]["wandb"] | {"dir": "~/.config"}},
    }
    config = repeated_config(store("theirs", text, changed), ())
    assert config.run_dir.startswith("runs/")
    assert config.references_dir == "runs/references"
    assert config.data.root is None
    assert config.logger["wandb"].dir == "runs"
    assert repeated_config(Path("theirs"), ["data.root=/mine"]).data.root == "/mine"


def test_nothing_is_written_through_a_link_that_lies_beside_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("outside", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = repeatable_yaml(tiny_config("strategy=naive", "logger=[wandb]"))
    wandb = yaml.safe_load(text)["logger"]["wandb"] | {"dir": "a/link"}
    folder = store("a", text, {"references_dir": "a/link/references", "logger": {"wandb": wandb}})
    (folder / "link").symlink_to(tmp_path / "outside")
    config = load_config(folder)
    assert config.references_dir == "runs/references"
    assert config.logger["wandb"].dir == "runs"
