"""Run folders can be shared: they hold no keys, no tokens and none of the user's absolute paths."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cl_powerprop.config import repeatable_yaml
from cl_powerprop.experiment import run
from cl_powerprop.privacy import redact, redact_all
from cl_powerprop.run_folder import RunFolder

from .conftest import MASKED, Command, tiny_config, tree

pytestmark = pytest.mark.slow

SECRETS = {
    "WANDB_API_KEY": "5e9c" * 10,
    "GITHUB_TOKEN": "ghp_abcdefghijklmnop",
    "DB_PASSWORD": "correct horse battery",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's machine: a home folder with a project as the working folder, data elsewhere, and secrets."""
    folder = tmp_path / "home" / "alice.smith"
    (folder / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder / "project")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    return folder


def assert_clean(folder: Path, *private: str) -> None:
    files = tree(folder)
    assert len(files) >= 4
    for name, content in files.items():
        for text in (*private, *SECRETS.values(), "alice"):
            assert text.encode() not in content, f"{text} in {name}"
            assert text not in name


def test_nothing_private_is_in_a_run_folder(home: Path, tmp_path: Path, command: Command) -> None:
    """Every option that takes a path is set, and W&B reports an error, since it cannot be reached."""
    data = tmp_path / "bobs_disk" / "data"
    words = (
        *("run", f"data.root={data}", "benchmark.n_tasks=2", "train.epochs=2", *MASKED),
        *(f"references_dir={home}/references", "references=[untrained]", f"run_dir={home}/project/results/run"),
        *("logger=[wandb,tensorboard]", f"logger.wandb.dir={home}/logs", "logger.wandb.timeout=2"),
    )
    assert command(*words, "logger.wandb.mode=online") == 0
    folder = home / "project" / "results" / "run"
    assert json.loads((folder / "run.json").read_text())["messages"], "W&B was complained of"
    assert_clean(folder, str(tmp_path), "bobs_disk", sys.prefix)
    assert list((home / "logs").glob("wandb/offline-run-*")), "W&B's own files are elsewhere"


@pytest.mark.parametrize("launcher", ["basic", "processes"])
def test_nothing_private_is_in_a_multirun_folder(home: Path, command: Command, launcher: str) -> None:
    words = ("run", "-m", "benchmark.n_tasks=2", "train.epochs=2", *MASKED, "seed=0,1", f"hydra/launcher={launcher}")
    assert command(*words, f"data.root={home}/data", f"run_dir={home}/project/sweep") == 0
    assert_clean(home / "project" / "sweep", str(home))


def test_the_config_still_repeats_the_run(home: Path, tmp_path: Path, command: Command) -> None:
    words = ("benchmark.n_tasks=2", "train.epochs=2", *MASKED, f"references_dir={home}/references")
    assert command("run", *words, "logger=[tensorboard]", "run_dir=first") == 0
    assert command("repeat", "first", "run_dir=second") == 0
    first, second = tree(Path("first")), tree(Path("second"))
    for name in ("accuracy_matrix.csv", "config.yaml", "capacity.csv"):
        assert first[name] == second[name], name
    assert [name for name in second if "tfevents" in name], "it logs where the first one did"


def test_a_relative_data_folder_is_kept(home: Path, command: Command) -> None:
    words = ("data.root=data", "benchmark.n_tasks=2", "train.epochs=2", *MASKED)
    assert command("run", *words, "run_dir=run") == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["data"]["root"] == "data"


def test_an_error_tells_no_paths(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl_powerprop import checkpointing

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"no sense in {home}/project/runs/x")

    monkeypatch.setattr(checkpointing, "save", fail)
    with pytest.raises(RuntimeError, match="no sense"):
        run(tiny_config("strategy=naive"), Path("run").absolute())
    record = json.loads(Path("run/run.json").read_text())
    assert "no sense in ./runs/x" in record["error"]
    assert_clean(Path("run"), str(home))


def test_paths_outside_the_home_folder(
    home: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a cluster's scratch disk. The folder of temporary files is moved, so that it does not hide the path."""
    (tmp_path / "other").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))
    scratch = tmp_path / "scratch" / "alice"
    words = ("benchmark.n_tasks=2", "train.epochs=2", *MASKED, f"run_dir={scratch}/run", "logger=wandb")
    more = (f"logger.wandb.dir={scratch}/logs", "logger.wandb.timeout=2", "data.root=../../../scratch/alice/data")
    assert command("run", *words, *more) == 0
    assert_clean(scratch / "run", str(scratch), "scratch")
    assert "cl-powerprop sync <wandb>" in (scratch / "run" / "run.json").read_text()


def test_what_is_redacted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    working = Path.cwd()
    assert redact(f"see {working}/runs/a.csv") == "see ./runs/a.csv"
    assert redact(json.dumps({"path": str(working)})) == '{"path": "."}'
    assert redact(f"key {SECRETS['WANDB_API_KEY']}!") == "key <WANDB_API_KEY>!"
    assert redact(f"{sys.prefix}/lib") == "<python>/lib"
    monkeypatch.setenv("HOME", "/home/j\u00f6rg")
    assert redact("/home/j\u00f6rg/b, /home/j\u00f6rg. And '/home/j\u00f6rg'") == "~/b, ~. And '~'"
    assert redact(json.dumps("/home/j\u00f6rg/b")) == '"~/b"'
    others = "/home/j\u00f6rgen /home/j\u00f6rg-2 /home/j\u00f6rg.old /mnt/home/j\u00f6rg"
    assert redact(others) == others, "folders whose names begin or end alike"


def test_escaped_texts_are_redacted_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = 'pässwörd "with quotes" \\ and words that a line of YAML would be broken between, as it is so long'
    monkeypatch.setenv("DB_PASSWORD", secret)
    folder = RunFolder(tmp_path / "run")
    folder.write_json("a.json", {"deep": [{"message": f"no {secret} here"}]})
    assert json.loads((tmp_path / "run" / "a.json").read_text()) == {"deep": [{"message": "no <DB_PASSWORD> here"}]}
    assert redact(json.dumps([secret])) == '["<DB_PASSWORD>"]'
    config = tiny_config("strategy=naive", "logger=wandb")
    config.logger["wandb"].tags = [f"tag {secret}"]
    (tag,) = yaml.safe_load(repeatable_yaml(config))["logger"]["wandb"]["tags"]
    assert re.fullmatch("tag <DB_PASSWORD [0-9a-f]{6}>", tag)


@given(st.text(st.characters(exclude_characters="/\\"), max_size=200))
def test_text_without_a_path_is_not_changed(text: str) -> None:
    assert redact(text) == text


def test_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_TOKEN", "sgd")
    RunFolder(tmp_path / "run").write_text("a.txt", "optimizer: sgd")
    assert (tmp_path / "run" / "a.txt").read_text() == "optimizer: sgd"


def hidden(monkeypatch: pytest.MonkeyPatch, value: object, **variables: str) -> object:
    for name, secret in variables.items():
        monkeypatch.setenv(name, secret)
    return redact_all(value)


@pytest.mark.parametrize(
    "name",
    [
        *("PASS", "DB_PASS", "SSHPASS", "MYSQL_PWD", "GITLAB_PAT", "PAT", "SIGNING_KEY", "KEYS", "BASIC_AUTH"),
        *("SESSION_COOKIE", "SENTRY_DSN", "apiToken", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "CARD_PIN", "db-pass"),
        *(
            "ENCRYPTIONKEY",
            "STRIPEKEY",
            "MYSECRETVALUE",
            "PASSWORD_OLD",
            "passwordFile",
            "TOKEN1",
            "apikeys",
            "passkey",
        ),
    ],
)
def test_names_of_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"tags": ["hunt", "a hunt, and hunting"], "name": "x-hunt", "seed": 1}
    assert hidden(monkeypatch, told, **{name: "hunt"}) == {
        "tags": [f"<{name}>", f"a <{name}>, and hunting"],
        "name": f"x-<{name}>",
        "seed": 1,
    }


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "PWD",
            "OLDPWD",
            "TOKENIZERS_PARALLELISM",
            "GIT_AUTHOR_NAME",
            "KEYBOARD",
            "MONKEY",
            "MONKEYS",
            "USER",
        ),
        *("TURKEY", "HOTKEY", "KEYED", "SECRETARY", "PASSWORDLESS", "PATTERN", "COMPASSION", "SORTKEY", "PINNED"),
    ],
)
def test_names_of_no_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"notes": "elsewhere/of/theirs"}
    assert hidden(monkeypatch, told, **{name: "elsewhere/of/theirs"}) == told


def test_short_secrets_leave_a_config_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch or a number in a variable named like a secret, or a password that is an optimizer, says nothing."""
    config = repeatable_yaml(tiny_config("strategy=naive", "optimizer=adam"))
    ordinary = ["true", "False", "1", "0", "32", "adam", "digits", "epn", "constant", "null", "", " "]
    for index, value in enumerate(ordinary):
        monkeypatch.setenv(f"SOME_{index}_KEY", value)
    assert repeatable_yaml(tiny_config("strategy=naive", "optimizer=adam")) == config
    facts = {"started": "2026-01-01T00:00:00", "tags": ["2026", "ab", "an ab c"]}
    assert hidden(monkeypatch, facts, DB_PIN="2026", ONE_PW="ab") == {
        "started": "2026-01-01T00:00:00",
        "tags": ["<DB_PIN>", "<ONE_PW>", "an ab c"],
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://me:pw@host:5432/db", "postgres://<hidden>@host:5432/db"),
        ("see https://me:p@ss:w@host/x.", "see https://<hidden>@host/x."),
        ("https://0123456789abcdef0123@host/x", "https://<hidden>@host/x"),
        ("ssh://git@github.com/a and http://127.0.0.1:9/a@b", "ssh://git@github.com/a and http://127.0.0.1:9/a@b"),
        ("https://h/x?a=1&X-Amz-Signature=abc&b=2", "https://h/x?a=1&X-Amz-Signature=<hidden>&b=2"),
        ("https://h/x?sig=a%2Fb#access_token=cd", "https://h/x?sig=<hidden>#access_token=<hidden>"),
        ("https://h/x?key=abc&monkey=1", "https://h/x?key=<hidden>&monkey=1"),
        ("host=db password=hunter2 user=me", "host=db password=<hidden> user=me"),
        ("hf_" + "a1B2" * 6, "<hidden>"),
        ("x ghp_" + "a1B2" * 6, "x <hidden>"),
        ("sk-proj-" + "a1_-" * 6 + ".", "<hidden>."),
        ("AKIA" + "A1" * 8, "<hidden>"),
        ("Authorization: Bearer abcdef0123456789abc", "Authorization: <hidden>"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic <hidden>"),
        ("a basic dXNlcjpwYXNz", "a basic <hidden>"),
        ("basic implementation of ResNet18Architecture", "basic implementation of ResNet18Architecture"),
        ("authorization: abcdef, X-Api-Key: abcd", "authorization: <hidden>, X-Api-Key: <hidden>"),
        ("mysql://u:p#x@h", "mysql://<hidden>@h"),
        ("https://user:pa/ss@host/x?a=b", "https://<hidden>@host/x?a=b"),
        ("http://host:8080/a@b and https://h:443?x@y", "http://host:8080/a@b and https://h:443?x@y"),
        ("http://[::1]:8080/x@y", "http://[::1]:8080/x@y"),
        ("user=me&password=hun%20ter&x=1", "user=me&password=<hidden>&x=1"),
        ("max_token=512 auth=none token=true", "max_token=512 auth=none token=true"),
        ("n_pass=2048 lowpass=0.25 bypass=mean", "n_pass=2048 lowpass=0.25 bypass=mean"),
        ("signature=int8 oauth=foo max_token=1024", "signature=int8 oauth=foo max_token=1024"),
        ("client_secret=ab db_pass=cd dbpassword=ef", "client_secret=<hidden> db_pass=<hidden> dbpassword=<hidden>"),
        ("run --password hunter --db-token abc --tokens 5", "run --password <hidden> --db-token <hidden> --tokens 5"),
        ("sk-learn-and-other-long-names of runs", "sk-learn-and-other-long-names of runs"),
    ],
)
def test_what_looks_like_a_secret(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact_all([text]) == [shown]
    assert json.loads(redact(json.dumps({"a": text, "b": "x@y"}))) == {"a": shown, "b": "x@y"}


def test_options_that_are_named_like_secrets() -> None:
    assert redact_all({"api_key": "x", "token": None, "n_tokens": 5, "monkey": "y", "password": ""}) == {
        "api_key": "<hidden>",
        "token": None,
        "n_tokens": 5,
        "monkey": "y",
        "password": "",
    }


@pytest.mark.parametrize(
    "piece", ["://", "://a:", "://a:b/", "basic ", "token=", "--password ", "authorization: ", "a1"]
)
def test_long_texts_take_little_time(piece: str) -> None:
    start = time.process_time()
    redact(piece * (10**6 // len(piece)))
    assert time.process_time() - start < 5


def test_numbers_and_truth_values_are_no_secrets() -> None:
    told = {"tokens": "8", "n_keys": "none", "auth": "false", "keys": ["12", "x"]}
    assert redact_all(told) == {"tokens": "8", "n_keys": "none", "auth": "false", "keys": ["12", "<hidden>"]}


def test_short_secrets_with_digits_are_hidden_in_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASS", "hunter2")
    monkeypatch.setenv("OTHER_PASS", "weight")
    assert redact("at hunter2: xhunter2 hunter22 weight") == "at <DB_PASS>: xhunter2 hunter22 weight"


def test_secrets_in_addresses_and_forms_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASS", "p@ss w0rd!!/zz")
    for text in ("p%40ss%20w0rd%21%21%2Fzz", "p%40ss+w0rd%21%21%2Fzz", "p%40ss%20w0rd%21%21/zz"):
        assert redact(f"x={text}&") == "x=<DB_PASS>&"


def test_the_password_in_a_url_is_a_secret_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["the password is hun/ter", "postgres://a:hun%2Fter@b/c"]
    assert hidden(monkeypatch, told, DATABASE_URL="postgres://a:hun%2Fter@b/c") == [
        "the password is <DATABASE_URL>",
        "postgres://a:<DATABASE_URL>@b/c",
    ]


def test_a_config_that_names_the_environment_tells_no_secrets(
    home: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"DB_PASS": "hunt", "MY_PAT": "0123456789abcdef", "DB_URL": "mysql://me:sesame@db/x"}.items():
        monkeypatch.setenv(name, value)
    tags = "[${oc.env:DB_PASS},'at ${oc.env:MY_PAT}','${oc.env:DB_URL}']"
    words = (
        "benchmark.n_tasks=2",
        "train.epochs=2",
        *MASKED,
        "logger=[wandb,tensorboard]",
        "logger.wandb.mode=offline",
        f"logger.wandb.dir={home}/logs",
        f"logger.wandb.tags={tags}",
    )
    assert command("run", *words, "run_dir=run") == 0
    assert_clean(Path("run"), "hunt", "0123456789abcdef", "sesame")
    logged = b"".join(tree(home / "logs").values())
    assert b"<DB_PASS>" in logged, "the tags were sent"
    for secret in (b"hunt", b"0123456789abcdef", b"sesame"):
        assert secret not in logged


@pytest.mark.parametrize("word", ["lenet_300_100", "average_accuracy", "schema_version"])
def test_our_own_words_stay_however_long_they_are(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORT_KEY", word)
    assert redact_all({word: f"it is {word}", "name": word}) == {word: f"it is {word}", "name": word}
