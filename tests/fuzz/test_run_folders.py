"""Run folders from strangers, beside a good one that is always compared."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from cl_powerprop.analysis import compare_runs, load_runs, pairwise_table, summary_table
from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.report import render_report
from cl_powerprop.analysis.tables import csv_bytes, markdown
from cl_powerprop.errors import UserError

from ..analysis.folders import write_run
from .cases import cases
from .conftest import Seeds, copied
from .guard import Place, case, watched
from .hostile import SNIPPETS, VALUES, Change, Damage, any_damage, as_json, as_yaml, changed, few_changes, some_snippet

pytestmark = pytest.mark.slow

GOOD = "naive-0"
TABLES = ("curves.csv", "capacity.csv", "reuse.csv", "mask_overlap.csv", "weights.csv", "sparsity.csv")
FILES = ("run.json", "config.yaml", "accuracy_matrix.csv", *TABLES)
NAMES = ("a\nb", "x;touch outside;", "$(touch outside)", "<script>", "\x1b[2J", "=1", "-x", "a b", "n\udcff", "\u202e")


@dataclass(frozen=True)
class InJson:
    """Values of run.json are changed."""

    changes: list[Change]

    def __call__(self, path: Path, place: Place) -> None:
        path.write_bytes(as_json(changed(json.loads(path.read_text()), self.changes, place)))


@dataclass(frozen=True)
class InYaml:
    """Values of a config are changed, or something is written behind or before it, or in its place."""

    changes: list[Change]
    snippet: str | None
    where: int

    def __call__(self, path: Path, place: Place) -> None:
        content = path.read_bytes()
        if self.changes:
            content = as_yaml(changed(yaml.safe_load(content), self.changes, place))
        if self.snippet is not None:
            more = SNIPPETS[self.snippet].encode()
            content = (content + more, more + content, more)[self.where]
        path.write_bytes(content)


@dataclass(frozen=True)
class InCsv:
    """Cells of a table are changed."""

    cells: list[tuple[int, int, str]]
    rows: int

    def __call__(self, path: Path, place: Place) -> None:
        rows = list(csv.reader(path.read_text().splitlines()))
        for row, column, value in self.cells:
            cells = rows[row % len(rows)]
            if cells:
                cells[column % len(cells)] = _cell(value, place)
        rows += rows[1:] * self.rows
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        path.write_bytes(text.getvalue().encode(errors="surrogatepass"))


def _cell(name: str, place: Place) -> str:
    value: Any = VALUES[name]
    return str(value).replace("<secret>", str(place.secret))


in_yaml = st.one_of(
    st.builds(InYaml, few_changes, st.none(), st.just(0)),
    st.builds(InYaml, st.just([]), some_snippet, st.integers(0, 2)),
    st.builds(InYaml, st.just([]), some_snippet, st.just(0)),
)
in_csv = st.builds(
    InCsv,
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9), st.sampled_from(sorted(VALUES))), min_size=1, max_size=4),
    st.sampled_from([0, 0, 0, 1, 2000]),
)
in_file = st.one_of(
    st.tuples(st.just("run.json"), st.builds(InJson, few_changes)),
    st.tuples(st.just("config.yaml"), in_yaml),
    st.tuples(st.sampled_from(FILES[2:]), in_csv),
    st.tuples(st.sampled_from(FILES), any_damage),
)
damages = st.lists(in_file, min_size=1, max_size=3, unique_by=lambda pair: pair[0])
Damages = list[tuple[str, Damage]]


def damaged(folder: Path, drawn: Damages, place: Place) -> None:
    """Damage the files of a run folder that it has."""
    for name, damage in drawn:
        if (folder / name).exists():
            damage(folder / name, place)


def prepared(seeds: Seeds, place: Place, folder: Path, victim: int, name: str, drawn: Damages) -> None:
    write_run(folder / "runs" / GOOD)
    folders = [*seeds.complete.values(), *seeds.begun.values()]
    damaged(copied(folders[victim], folder / "runs" / name), drawn, place)


@cases(
    "run folders",
    victim=st.integers(0, 5),
    name=st.just("victim") | st.sampled_from(NAMES),
    drawn=damages,
    reports=st.integers(0, 5),
)
def test_a_run_folder_is_loaded_or_is_one_line(
    seeds: Seeds, place: Place, victim: int, name: str, drawn: Damages, reports: int
) -> None:
    with case(place) as folder:
        prepared(seeds, place, folder, victim, name, drawn)

        def act() -> list[str]:
            runs = load_runs("runs")
            assert GOOD in runs.runs.index
            comparison = compare_runs(runs, allow_mixed=True)
            assert GOOD in comparison.runs.runs.index
            summary, pairwise = summary_table(comparison), pairwise_table(comparison)
            text = markdown(comparison, summary, pairwise)
            Path("summary.md").write_text(text)
            Path("summary.csv").write_bytes(csv_bytes(summary))
            if not reports:
                Path("report.html").write_text(render_report(comparison, summary, pairwise, comparison, []))
            return [*runs.problems, *comparison.warnings]

        watched(place, act, errors=())


@cases("reports", victim=st.integers(0, 5), name=st.sampled_from(NAMES), drawn=damages)
def test_a_comparison_is_written_whole(seeds: Seeds, place: Place, victim: int, name: str, drawn: Damages) -> None:
    with case(place) as folder:
        prepared(seeds, place, folder, victim, name, drawn)

        def act() -> list[str]:
            compared = compare(["runs"], Path("out"), allow_mixed=True)
            return compared.comparison.warnings

        watched(place, act, errors=(UserError,), seconds=10)  # it draws eight figures, three seconds without damage
        for file in ("summary.csv", "summary.md", "pairwise.csv", "report.html"):
            assert (folder / "out" / file).stat().st_size > 0
