"""A stranger's run folder costs itself, and one line: nothing is followed, run, or made a link or a formula."""

import contextlib
import csv
import html
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cl_powerprop.analysis import compare_runs, load_runs, pairwise_table, summary_table
from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.tables import markdown
from cl_powerprop.analysis.wording import plotly_text
from cl_powerprop.cli import main
from cl_powerprop.documents import parse_json, parse_yaml
from cl_powerprop.output import without_escapes
from cl_powerprop.shown import as_line, as_setting, csv_cell, in_markdown, shell_word

from .folders import forgetful, write_run
from .hostile import (
    OUTSIDE,
    TEXTS,
    TOKEN,
    UNPRINTABLE,
    cases,
    with_fact,
    with_layer,
    with_name,
    with_setting,
    with_value,
)
from .test_report import browser, until  # noqa: F401, RUF100 (a fixture)

pytestmark = pytest.mark.slow

CASES = cases()
GOOD = ("epn-0", "naive-0", "naive-1")
VICTIM = "epn-1"
SECONDS = 20.0
MEMORY = 3 * 2**30  # bytes of address space, most of which libraries reserve


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs`, and beside it what no run may reach: a secret, and a whole run that holds it."""
    root = tmp_path_factory.mktemp("hostile")
    for seed in (0, 1):
        write_run(root / "runs" / f"naive-{seed}", "naive", seed, forgetful(3, seed), within=True)
        write_run(root / "runs" / f"epn-{seed}", "epn", seed, forgetful(3, seed, 0.0), masked=True)
    outside = root / OUTSIDE
    write_run(outside / "run", "epn", 1, forgetful(3, 1, 0.0), masked=True, record={"messages": [TOKEN]})
    with (outside / "run" / "config.yaml").open("a") as file:
        file.write(f"note: {TOKEN}\n")
    (outside / "secret").write_text(f"note: {TOKEN}\n")
    return root


def copied(good: Path) -> Path:
    root = Path(tempfile.mkdtemp(dir=good.parent))
    shutil.copytree(good, root, dirs_exist_ok=True)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", dict.fromkeys(name.partition(": ")[0] for name in CASES))
def test_a_hostile_run_costs_itself_and_one_line(good: Path, kind: str) -> None:
    """All cases of a kind at once: whatever is wrong with one of them costs neither the good ones nor the others."""
    root = copied(good)
    bad = {f"bad-{index}": name for index, name in enumerate(CASES) if name.startswith(f"{kind}: ")}
    for seed, (run, name) in enumerate(bad.items(), 100):
        shutil.copytree(root / "runs" / VICTIM, root / "runs" / run)
        with_fact("seed", seed)(root / "runs" / run)
        CASES[name](root / "runs" / run)
    before, started = contents(root / OUTSIDE), time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_runs(root / "runs")
        comparison = compare_runs(loaded, allow_mixed=True)
        summary, pairwise = summary_table(comparison), pairwise_table(comparison)
        text = markdown(comparison, summary, pairwise)
    assert time.monotonic() - started < SECONDS
    assert {*GOOD, VICTIM} <= {*comparison.runs.runs.index}
    problems = [problem.partition(": ")[0] for problem in loaded.problems]
    for run, name in bad.items():
        assert problems.count(run) <= (3 if kind == "a layer" else 1), name
        assert run in loaded.runs.index or run in problems, name
    assert {*problems} <= {*bad}
    assert all(line.isprintable() and len(line) <= 1000 for line in loaded.problems)
    text.encode()
    assert TOKEN not in text
    assert str(root) not in text
    assert contents(root / OUTSIDE) == before


def test_memory_is_bounded(good: Path) -> None:
    """In another process, which may take little more than it takes for good runs."""
    root = copied(good)
    heavy = ("10 GB", "billions", "nested", "10,000", "99,999,999", "99_999_999", "sexagesimal", "far out", "very long")
    for index, (name, change) in enumerate(CASES.items()):
        if any(word in name for word in heavy):
            shutil.copytree(good / "runs" / VICTIM, root / "runs" / f"bad-{index}")
            change(root / "runs" / f"bad-{index}")
    script = "import sys; from cl_powerprop.analysis import load_runs; print(len(load_runs(sys.argv[1]).runs))"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    words = [sys.executable, "-c", script, str(root / "runs")]
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=limited, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 4


def with_texts(good: Path, make: Any, texts: dict[str, str]) -> Path:
    """Return a folder with the good runs, and for each text a run that has it in one place."""
    root = copied(good)
    for index, text in enumerate(texts.values()):
        run = root / "runs" / f"bad-{index}"
        shutil.copytree(root / "runs" / "epn-0", run)
        with_fact("seed", 100 + index)(run)
        make(text)(run)
    return root


PLACES: dict[str, Any] = {
    "strategy": lambda text: with_fact("strategy", text),
    "setting": with_setting,
    "metric": lambda text: with_value(f"metrics/{text.replace('/', '_')}", 0.5),
    "messages": lambda text: with_value("messages", [text]),
    "task": lambda text: with_name("accuracy_matrix.csv", "permutation_0", text),
    "layer": with_layer,
}


class Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]


@pytest.mark.parametrize("place", PLACES)
def test_names_are_text_wherever_they_are_shown(
    good: Path, place: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = with_texts(good, PLACES[place], {**TEXTS, **UNPRINTABLE})
    out = tmp_path / "out"
    done = compare([root / "runs"], out, allow_mixed=True)
    assert {*GOOD} <= {*done.comparison.runs.runs.index}
    printed = capfd.readouterr().out
    assert "\x1b" not in printed, "no terminal is attached, so there are no colours either"
    assert all(letter.isprintable() or letter == "\n" for letter in printed)

    text = (out / "report.html").read_text(encoding="utf-8")
    page, plain = Page(), Page()
    page.feed(text)
    compare([good / "runs"], tmp_path / "plain", quiet=True)
    plain.feed((tmp_path / "plain" / "report.html").read_text(encoding="utf-8"))
    assert page.tags <= plain.tags
    assert page.attributes <= plain.attributes | {"style"}
    assert page.links == plain.links == ["data:,"]
    (found,) = re.findall(r'id="specifications">(.*?)</script>', text, re.DOTALL)
    for string in strings(json.loads(found)):
        assert not re.search(r"<(?!br>|extra></extra>|/extra>)", string), string
        assert not re.search(r"%\{(?!(x|y|z|text|customdata)\b)", string), string

    for name in ("summary.csv", "pairwise.csv"):
        with (out / name).open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                for cell in row:
                    assert cell[:1] not in ("=", "+", "@", "\t", "\r"), cell
                    assert cell[:1] != "-" or pd.notna(pd.to_numeric(cell, errors="coerce")), cell
    lines = (out / "summary.md").read_text(encoding="utf-8")
    outside_of_code = re.sub(r"(`+).*?\1", "", lines)
    assert "evil.example" not in outside_of_code
    assert "<" not in outside_of_code
    for path in out.glob("*.svg"):
        drawn = path.read_text(encoding="utf-8")
        assert "<a " not in drawn
        assert "<script" not in drawn


def strings(value: Any) -> Any:
    """Yield the texts of a specification that Plotly shows; `meta` is for the page's own script."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key != "meta":
                yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


def test_hostile_runs_all_at_once(good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = copied(good)
    for index, change in enumerate(CASES.values()):
        run = root / "runs" / f"bad-{index}"
        shutil.copytree(root / "runs" / VICTIM, run)
        change(run)
    before = contents(root / OUTSIDE)
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(root / "runs"), "--out", str(tmp_path / "out"), "--allow-mixed", "--by", "strategy"])
    assert ended.value.code == 0
    out, err = capfd.readouterr()
    assert all(letter.isprintable() or letter == "\n" for letter in out + err)
    for file in (tmp_path / "out").iterdir():
        if file.suffix != ".png":
            assert TOKEN not in file.read_text(encoding="utf-8"), file
            assert str(root) not in file.read_text(encoding="utf-8"), file
    assert {*GOOD} <= {*load_runs(root / "runs").runs.index}
    assert contents(root / OUTSIDE) == before


def test_no_link_is_followed_out_of_a_folder(good: Path) -> None:
    root = copied(good)
    (root / "runs" / "more").symlink_to(root / OUTSIDE)
    (root / "runs" / "latest").symlink_to("epn-0")
    (root / "runs" / "up").symlink_to("..")
    loaded = load_runs(root / "runs")
    assert list(loaded.runs.index) == sorted([*GOOD, VICTIM])
    assert sorted(loaded.problems) == [
        "runs/more: a link to another folder, which is not followed",
        "runs/up: a link to another folder, which is not followed",
    ]
    assert len(load_runs(root / "runs" / "more").runs) == 1, "a link that is named is meant"


def test_folders_within_folders_have_a_limit(good: Path) -> None:
    root = copied(good) / "runs"
    deep = root
    for _ in range(300):
        deep = deep / "d"
        deep.mkdir()
    loaded = load_runs(root)
    assert len(loaded.runs) == 4
    assert loaded.problems == ["runs: folders more than 50 levels below are not searched"]


def test_nothing_is_written_through_a_link(good: Path, tmp_path: Path) -> None:
    """What lies in the folder to be written may be a stranger's, too."""
    kept = tmp_path / "kept"
    kept.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("report.html", "summary.csv", "summary.md", "pairwise.csv", "weights.png", "accuracy_matrix.svg"):
        (out / name).symlink_to(kept)
    (out / ".report.html.part").symlink_to(kept)
    compare([good / "runs"], out, quiet=True)
    assert kept.read_text() == "mine"
    assert not (out / "report.html").is_symlink()
    assert not (out / "weights.png").is_symlink()


@pytest.mark.parametrize(
    "folder", ["x;touch P;", "a b", "-rf", "$(touch P)", "`touch P`", "it's", "n\nl", "\x1b[2J", "ü"]
)
def test_commands_in_the_report_are_quoted(good: Path, folder: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(good / "runs" / "epn-0", root / folder)
    shutil.copytree(good / "runs" / "naive-0", root / "plain")
    compare([root], tmp_path / "out", quiet=True)
    text = html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    command = f"cl-powerprop repeat -- {shell_word(folder)}"
    assert f"<code>{command}</code>" in text
    assert "\x1b" not in text
    if folder.isprintable():
        assert shlex.split(command)[3:] == [folder]
    shell = subprocess.run(["bash", "-c", f"printf %s {shell_word(folder)}"], capture_output=True, check=True)
    assert os.fsdecode(shell.stdout) == folder
    assert not (tmp_path / "P").exists()


def test_no_path_of_the_users_is_in_the_files(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs are named by absolute paths: one below the home folder, others elsewhere, some of them damaged."""
    home = tmp_path / "home" / "alice.smith"
    for name in ("epn-0", "epn-1"):
        shutil.copytree(good / "runs" / name, home / "work" / name)
        shutil.copytree(good / "runs" / name.replace("epn", "naive"), tmp_path / "scratch" / name)
    (home / "work" / "epn-1" / "run.json").write_text("x")
    (home / "work" / "empty").mkdir()
    with (home / "work" / "epn-0" / "config.yaml").open("a") as file:
        file.write(f"note: {home}/elsewhere\n")
    monkeypatch.setenv("HOME", str(home))
    compare([home / "work", tmp_path / "scratch", home / "work" / "empty"], tmp_path / "out")
    for file in (tmp_path / "out").iterdir():
        if file.suffix != ".png":
            content = file.read_text(encoding="utf-8")
            assert "alice.smith" not in content, file
            assert str(tmp_path) not in content, file
    report = html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "note: ~/elsewhere" in report
    assert "cl-powerprop repeat -- '~/work/epn-0'" in report


texts = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    [*TEXTS.values(), *UNPRINTABLE.values()]
)
ATTACKS = settings(
    derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ATTACKS
@given(place=st.sampled_from([*PLACES]), text=texts)
def test_any_text_in_any_place(good: Path, place: str, text: str) -> None:
    root = copied(good)
    PLACES[place](text)(root / "runs" / VICTIM)
    loaded = load_runs(root / "runs")
    assert {*GOOD} <= {*loaded.runs.index}
    comparison = compare_runs(loaded, allow_mixed=True)
    assert all(label.isprintable() for label in comparison.groups)
    markdown(comparison, summary_table(comparison), pairwise_table(comparison)).encode()
    shutil.rmtree(root)


@ATTACKS
@given(
    content=st.binary(max_size=60) | st.text(alphabet="a:-?[]{},&*!|>'\"%@` \n#<=~.0x9", max_size=60).map(str.encode)
)
def test_any_yaml_and_json_is_read_or_refused(content: bytes) -> None:
    for parse in (parse_yaml, parse_json):
        with contextlib.suppress(ValueError):
            parse(content)


@ATTACKS
@given(text=texts)
def test_what_is_shown_of_any_text(text: str) -> None:
    line = as_line(text)
    assert line.isprintable()
    assert len(line) <= 1000
    assert as_setting(text).isprintable()
    assert all(letter.isprintable() or letter in "\n\t" for letter in without_escapes(text))
    cell = csv_cell(line)
    assert cell[:1] not in ("=", "+", "-", "@") or float(cell) is not None
    assert "](" not in re.sub(r"(`+).*?\1", "", in_markdown(line))
    assert not re.search(r"<(?!br>)|%\{", plotly_text(line, 20))


@ATTACKS
@given(name=st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name))
def test_a_shell_reads_what_was_quoted(name: bytes) -> None:
    word = shell_word(os.fsdecode(name))
    assert word.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout == name


@pytest.mark.parametrize("value", [5, -3.5, "-1", "1e5", "nan", None, 2.0, True])
def test_numbers_stay_numbers_in_csv(value: object) -> None:
    assert csv_cell(value) is value


def test_a_browser_runs_and_links_nothing_of_a_run(
    good: Path,
    browser: Any,  # noqa: F811, RUF100
    tmp_path: Path,
) -> None:
    """The figures are drawn all the same, also in the name that Plotly makes of a template."""
    root = with_texts(good, PLACES["strategy"], TEXTS)
    for index, text in enumerate(TEXTS.values()):
        with_name("accuracy_matrix.csv", "permutation_0", text)(root / "runs" / f"bad-{index}")
    compare([root / "runs"], tmp_path / "out", allow_mixed=True, quiet=True)
    browser.get((tmp_path / "out" / "report.html").as_uri())
    until(browser, "document.body.dataset.drawn !== undefined")
    assert browser.title.startswith("Comparison: ")
    assert (
        browser.execute_script("return document.querySelectorAll('a[href], svg a, form, iframe, object').length") == 0
    )
    assert browser.get_log("browser") == []
    lines = "return document.querySelectorAll('#chart-forgetting .scatterlayer .js-line').length"
    assert browser.execute_script(lines) >= len(TEXTS)
