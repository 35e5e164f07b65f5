"""The report: complete, self-contained, escaped, and interactive in a real browser."""

import html
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from PIL import Image

from cl_powerprop.analysis.compare import compare
from cl_powerprop.analysis.style import group_styles
from cl_powerprop.errors import RunFolderError

from .folders import forgetful, write_run, write_sweep

pytestmark = pytest.mark.slow

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
CHARTS = ["forgetting", "metrics", "matrix", "capacity", "composition", "pareto_capacity_used", "overlap", "weights"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    write_sweep(root / "runs")
    write_run(root / "runs" / "late", "naive", 9, status="failed", record={"error": "a <b>bold</b> & bad error"})
    compare([root / "runs"], root / "out", quiet=True)
    return root / "out" / "report.html"


def specifications(report: Path) -> dict[str, Any]:
    text = report.read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="specifications">(.*?)</script>', text, re.DOTALL)
    loaded: dict[str, Any] = json.loads(found)
    return loaded


def test_every_figure_is_valid_for_plotly(report: Path) -> None:
    figures = specifications(report)
    assert list(figures) == CHARTS
    for name, figure in figures.items():
        go.Figure(figure)  # checks every property
        assert figure["data"], name


def test_it_is_self_contained_and_escaped(report: Path) -> None:
    text = report.read_text(encoding="utf-8")

    class Links(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [value or "" for key, value in attrs if key in ("src", "href")]

    page = Links()
    page.feed(text)
    assert [link for link in page.found if not link.startswith("data:")] == []
    assert "<b>bold</b>" not in text
    assert html.escape("a <b>bold</b> & bad error") in text


def test_every_figure_has_a_text_and_every_run_its_command_and_config(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    for name in CHARTS:
        assert re.search(rf'id="chart-{name}" role="img" aria-label="[^"]{{40,}}"', text), name
    assert text.count("cl-powerprop repeat -- ") == 9
    assert text.count("defaults:\n  - base") == 9


def test_a_single_run_without_masks_has_fewer_figures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", matrix=forgetful(1))
    done = compare([run], tmp_path / "out", quiet=True)
    assert list(specifications(done.folder / "report.html")) == [
        "forgetting",
        "metrics",
        "matrix",
        "pareto_capacity_used",
        "weights",
    ]
    assert (done.folder / "pairwise.csv").exists()


def test_a_single_task_with_masks(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", "packnet", 0, forgetful(1), masked=True)
    assert "mask_composition.png" in compare([tmp_path / "runs"], tmp_path / "out", quiet=True).files


def test_masks_whose_reuse_cannot_be_read_are_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "packnet", 0, masked=True)
    (run / "reuse.csv").write_text("x\n1\n")
    files = compare([run], tmp_path / "out", quiet=True).files
    assert "mask_composition.png" not in files
    assert "capacity_growth.png" in files


def test_figures_of_an_earlier_comparison_are_removed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "packnet$^$", 0, masked=True)
    write_run(tmp_path / "b", "naive[red]", 0)
    compare([tmp_path / "a", tmp_path / "b"], tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "mask_overlap.svg").exists()
    compare([tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out" / "mask_overlap.svg").exists()


def test_images_are_not_blank(report: Path) -> None:
    for path in report.parent.glob("*.png"):
        with Image.open(path) as image:
            assert len(set(image.convert("L").resize((60, 60)).tobytes())) > 5, path.name
    for path in report.parent.glob("*.svg"):
        assert "<svg" in path.read_text(encoding="utf-8")[:2000]


def test_metrics_have_labels_and_the_best_means_are_bold(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert '<option value="capacity_used">capacity used</option>' in text
    assert '<td class="number" data-value="0.92"><strong>0.9200 ± 0.0497</strong></td>' in text
    assert re.search(r'<td class="number" data-value="0\.8[01]\d*">0\.8100 ± 0\.0248</td>', text)
    assert re.search(r'<td class="number" data-value="0\.3\d*">30\.0 %</td>', text), "a single run's"


def test_the_same_runs_give_the_same_files(report: Path, tmp_path: Path) -> None:
    compare([report.parent.parent / "runs"], tmp_path / "again", quiet=True)
    for path in report.parent.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_a_folder_that_cannot_be_written(report: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"):
        compare([report.parent.parent / "runs"], tmp_path / "file" / "out", quiet=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, headless; CI must have it."""
    if BROWSER is None or DRIVER is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no chromium and chromedriver; .ci/run installs them")
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = BROWSER
    for word in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{word}")
    options.add_argument("--disable-dev-shm-usage")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser: Any, report: Path, width: int = 1200, dark: bool = False) -> Any:
    scheme = "dark" if dark else "light"
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(report.as_uri())
    until(browser, f"document.body.dataset.drawn === '{len(CHARTS)}'")
    return browser


def until(browser: Any, condition: str) -> None:
    for _ in range(300):
        if browser.execute_script(f"return {condition}"):
            return
        time.sleep(0.1)
    raise AssertionError(f"never: {condition}")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_all_figures_are_drawn_without_a_console_error(browser: Any, report: Path, width: int, dark: bool) -> None:
    opened(browser, report, width, dark)
    assert browser.get_log("browser") == []
    marks = ".scatterlayer path, .barlayer path, .heatmaplayer image"
    script = "return [...document.querySelectorAll('.chart')].map(c => c.querySelector(arguments[0]) !== null)"
    drawn = browser.execute_script(script, marks)
    assert drawn == [True] * len(CHARTS)
    lines = "return document.querySelectorAll('#chart-forgetting .scatterlayer .js-line').length"
    assert browser.execute_script(lines) >= 3
    fits = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert browser.execute_script(fits), "nothing is wider than the page"
    ink = browser.execute_script("return document.querySelector('#chart-forgetting').layout.font.color")
    assert ink == ("#e8e8e8" if dark else "#1c1c1c")


def test_a_strategy_switched_off_is_hidden_everywhere(browser: Any, report: Path) -> None:
    opened(browser, report)
    count = "document.querySelectorAll('#chart-forgetting .scatterlayer .js-line').length"
    before = browser.execute_script(f"return {count}")
    browser.execute_script("document.querySelector('input[data-group=naive]').click()")
    until(browser, f"{count} < {before}")
    shown = (
        "return Object.fromEntries([...document.querySelectorAll('.chart')].map(c => [c.id, "
        "c._fullData.some(t => t.visible === true && t.meta.group === 'naive')]))"
    )
    assert not any(browser.execute_script(shown).values())
    row = "return getComputedStyle(document.querySelector('tr[data-row=naive]')).display"
    assert browser.execute_script(row) == "none"
    browser.execute_script("document.querySelector('input[data-group=naive]').click()")
    until(browser, f"{count} === {before}")
    assert browser.execute_script(shown)["chart-pareto_capacity_used"]


def test_the_lists_choose_task_metric_and_group(browser: Any, report: Path) -> None:
    opened(browser, report)
    for name, value in (("forgetting", "2"), ("metrics", "average_forgetting"), ("matrix", "packnet")):
        choose = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        browser.execute_script(choose, browser.find_element("id", f"{name}-choice"), value)
        chart = f"document.getElementById('chart-{name}')"
        chosen = f"{chart}._fullData.filter(t => t.visible === true).map(t => t.meta.choice)"
        until(browser, f"new Set({chosen}).size === 1")
        assert set(browser.execute_script(f"return {chosen}")) == {value}


def test_tables_sort(browser: Any, report: Path) -> None:
    opened(browser, report)
    table = "document.querySelector('table[data-table=summary]')"
    column = f"[...{table}.tBodies[0].rows].map(r => r.cells[0].textContent)"
    click = f"{table}.tHead.rows[0].cells[2].querySelector('button').click()"
    browser.execute_script(click)
    assert browser.execute_script(f"return {column}") == ["naive", "packnet", "epn"], "by average accuracy"
    browser.execute_script(click)
    assert browser.execute_script(f"return {column}") == ["epn", "packnet", "naive"]
    assert browser.execute_script(f"return {table}.tHead.rows[0].cells[2].getAttribute('aria-sort')") == "descending"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_nothing_of_a_figure_lies_over_something_else(browser: Any, report: Path, width: int, dark: bool) -> None:
    opened(browser, report, width, dark)
    script = """
      return [...document.querySelectorAll('figure')].map((figure) => {
        const chart = figure.querySelector('.chart'), frame = chart.getBoundingClientRect();
        const inside = [...chart.querySelectorAll('.xtitle, .ytitle, .xtick text, .ytick text')].every((text) => {
          const box = text.getBoundingClientRect();
          return box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
        });
        const parts = [...figure.children].map((part) => part.getBoundingClientRect());
        const apart = parts.every((part, index) => index === 0 || part.top >= parts[index - 1].bottom - 1);
        const title = chart.querySelector('.xtitle')?.getBoundingClientRect();
        const clear = !title || [...chart.querySelectorAll('.xtick text')].every((text) => text.getBoundingClientRect().bottom <= title.top + 2);
        return [chart.id, inside, apart, clear];
      });"""  # noqa: E501
    assert browser.execute_script(script) == [[f"chart-{name}", True, True, True] for name in CHARTS]


@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_of_groups_has_a_legend(browser: Any, report: Path, width: int) -> None:
    opened(browser, report, width)
    script = """
      return Object.fromEntries([...document.querySelectorAll('.legend')].map((legend) => [
        legend.closest('figure').querySelector('.chart').id,
        [...legend.querySelectorAll('button')].filter((entry) => {
          const box = entry.getBoundingClientRect();
          return box.height > 0 && box.left >= 0 && box.right <= innerWidth;
        }).map((entry) => [entry.dataset.toggle, entry.querySelector('line').getAttribute('stroke')])]))"""
    legends = browser.execute_script(script)
    assert set(legends) == {
        f"chart-{name}" for name in ("forgetting", "metrics", "capacity", "pareto_capacity_used", "weights")
    }
    styles = group_styles(["epn", "naive", "packnet"])
    for name, entries in legends.items():
        shown = ["epn", "packnet"] if name == "chart-capacity" else ["epn", "naive", "packnet"]
        assert sorted(entries) == [[label, styles[label].colour] for label in shown], name


def test_an_entry_of_a_legend_switches_its_group(browser: Any, report: Path) -> None:
    opened(browser, report, 390)
    entry = "document.querySelector('#chart-weights ~ .legend [data-toggle=naive]')"
    browser.execute_script(f"{entry}.click()")
    until(browser, f"{entry}.getAttribute('aria-pressed') === 'false'")
    assert not browser.execute_script("return document.querySelector('input[data-group=naive]').checked")
    browser.execute_script(f"{entry}.click()")
    until(browser, f"{entry}.getAttribute('aria-pressed') === 'true'")


def test_ticks_are_whole_tasks_and_shares(browser: Any, report: Path) -> None:
    opened(browser, report)
    texts = "return [...document.querySelectorAll(arguments[0])].map((text) => text.textContent)"
    assert browser.execute_script(texts, "#chart-capacity .xtick text") == ["1", "2", "3"]
    assert browser.execute_script(texts, "#chart-forgetting .xtick text") == ["0", "1", "2", "3"]
    shares = [float(text.rstrip("%")) for text in browser.execute_script(texts, "#chart-capacity .ytick text")]
    assert all(0 <= share <= 100 for share in shares)
    low, high = browser.execute_script("return document.getElementById('chart-forgetting')._fullLayout.yaxis.range")
    assert 0 <= low < high <= 1


def test_the_numbers_are_those_of_the_chosen_task(browser: Any, report: Path) -> None:
    opened(browser, report)
    details = "document.querySelector('#chart-forgetting').closest('section').querySelector('details')"
    browser.execute_script(f"{details}.open = true")
    script = (
        f"return [...{details}.querySelectorAll('tbody tr')].filter((row) => row.offsetParent)"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    average = {row[0]: row[1:] for row in browser.execute_script(script)}
    assert average["naive"] == ["0.9100", "0.0760", "0.8100"]
    choose = "arguments[0].value = '2'; arguments[0].dispatchEvent(new Event('change'))"
    browser.execute_script(choose, browser.find_element("id", "forgetting-choice"))
    chosen = {row[0]: row[1:] for row in browser.execute_script(script)}
    assert chosen["naive"] == ["0.0910", "0.0910", "0.9100"]
    assert browser.execute_script(f"return {details}.querySelector('summary').textContent").endswith(
        "task 2: permutation_2"
    )
    browser.execute_script("document.querySelector('input[data-group=naive]').click()")
    assert "naive" not in {row[0]: row for row in browser.execute_script(script)}


def test_a_downloaded_figure_has_its_legend(browser: Any, report: Path, tmp_path: Path) -> None:
    opened(browser, report, dark=True)
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.execute_script("document.querySelector('#chart-capacity [data-title=\"Download as SVG\"]').click()")
    for _ in range(100):
        time.sleep(0.1)
        if (tmp_path / "capacity.svg").exists():
            break
    text = (tmp_path / "capacity.svg").read_text()
    assert '<text class="legendtext"' in text
    assert "epn" in text
    assert "rgb(28, 28, 28)" in text, "dark ink on white, though the page is dark"
    until(browser, "document.querySelector('#chart-capacity').layout.showlegend === false")
    assert browser.execute_script("return document.querySelector('#chart-capacity').layout.font.color") == "#e8e8e8"
