"""TensorBoard's event files, read back by its own reader, and its page in a real browser."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from cl_powerprop.experiment import run
from cl_powerprop.tracking import Row
from cl_powerprop.training.meters import EvaluationMeter

from ..run.conftest import MASKED, compose_config, tiny_config, tree
from ..run.test_resume import Cut
from .conftest import inspect, wandb_files

pytestmark = pytest.mark.slow

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
QUICKSTART = ("train.epochs=4", "benchmark.n_tasks=4", "logger=[tensorboard]", "progress=false")


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shortened runs of the quickstart in one folder."""
    root = tmp_path_factory.mktemp("tensorboard") / "runs"
    run(compose_config("experiment=quickstart/epn", "strategy.retrain_epochs=2", *QUICKSTART), root / "epn")
    run(compose_config("experiment=quickstart/naive", *QUICKSTART), root / "naive")
    return root


@pytest.fixture(scope="module")
def events(logdir: Path) -> EventAccumulator:
    everything = {"tensors": 0, "scalars": 0, "images": 0}
    return EventAccumulator(str(logdir / "epn"), size_guidance=everything).Reload()


def test_scalars_are_the_rows_of_the_csv(logdir: Path, events: EventAccumulator) -> None:
    curves = pd.read_csv(logdir / "epn" / "curves.csv").drop(columns="run_id")
    expected: dict[str, list[tuple[int, np.float32]]] = {}
    for line in curves.itertuples(index=False):
        expected.setdefault(Row(*line).curve, []).append((line.step, np.float32(line.value)))
    assert len(expected) == 4 * 6 + 1
    matrix = np.genfromtxt(logdir / "epn" / "accuracy_matrix.csv", delimiter=",", skip_header=1)
    tested = curves[(curves.split == "test") & (curves.metric == "accuracy") & (curves.eval_task == 0)]
    averages = [np.float32(matrix[task, : task + 1].mean()) for task in range(4)]
    expected["test/average_accuracy"] = list(zip(tested.step, averages, strict=True))
    for name, points in expected.items():
        assert [(event.step, np.float32(event.value)) for event in events.Scalars(name)] == points, name


def test_capacity_and_metrics_are_scalars_too(logdir: Path, events: EventAccumulator) -> None:
    record = json.loads((logdir / "epn" / "run.json").read_text())
    for name, value in record["metrics"].items():
        if value is not None:
            assert [np.float32(event.value) for event in events.Scalars(f"metrics/{name}")] == [np.float32(value)]
    capacity = pd.read_csv(logdir / "epn" / "capacity.csv")
    for layer, rows in capacity[capacity["kind"] == "masked"].groupby("layer"):
        for share in ("kept", "newly_frozen", "reused", "free"):
            logged = [event.value for event in events.Scalars(f"capacity/{layer}/{share}")]
            np.testing.assert_allclose(logged, rows[share] / rows["weights"], rtol=1e-6)


def test_capacity_is_shown_at_the_test_that_a_checkpoint_comes_before(tmp_path: Path) -> None:
    """The run is cut off between training and test of its second task, and goes on there."""
    words = ("strategy=packnet", *MASKED, "logger=[tensorboard,wandb]", "logger.wandb.mode=offline")
    options = (*words, f"logger.wandb.dir={tmp_path}", "checkpoint.every_seconds=1e-6")
    whole, tasks = EvaluationMeter.before_eval_exp, []

    def cut(meter: EvaluationMeter, strategy: Any, **rest: Any) -> None:
        tasks.append(strategy.experience.current_experience)
        if tasks == [0, 0, 1]:
            raise Cut
        whole(meter, strategy, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EvaluationMeter, "before_eval_exp", cut)
        with pytest.raises(Cut):
            run(tiny_config(*options), tmp_path / "run")
    run(tiny_config(*options), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(record["resumed"]) == 1
    curves = pd.read_csv(tmp_path / "run" / "curves.csv")
    ends = curves[curves["metric"] == "capacity_used"]["step"]
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0}).Reload()
    layers = [tag for tag in events.Tags()["scalars"] if tag.endswith("/free")]
    assert layers
    for tag in layers:
        assert [event.step for event in events.Scalars(tag)] == list(ends), tag
    records = [record for file in wandb_files(tmp_path) for record in inspect(file)]
    points = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert [point["trained_tasks"] for point in points if layers[0] in point] == [1, 2, 3]


def test_figures_are_images(events: EventAccumulator) -> None:
    assert events.Tags()["images"] == [
        f"pictures/{name}" for name in ("accuracy_matrix", "mask_composition", "mask_overlap")
    ]
    for name in events.Tags()["images"]:
        (shown,) = events.Images(name)
        pixels = np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)))
        assert pixels.shape[0] > 200
        assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10


def test_hparams_are_the_config(logdir: Path, events: EventAccumulator) -> None:
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    given = metadata.parse_session_start_info_plugin_data(content).hparams
    assert given["strategy.gamma"].number_value == 0.99
    assert given["model.alpha"].number_value == 2.0
    assert given["group"].string_value.startswith("epn, ")
    assert given["benchmark.name"].string_value == "permuted"
    assert given["model.hidden"].string_value == "[100, 100]"
    assert not [name for name in given if name.startswith(("logger", "run_dir"))]


def test_without_figures(tmp_path: Path) -> None:
    words = ("strategy=epn", *MASKED, "logger=[tensorboard]", "logger.tensorboard.figures=false")
    run(tiny_config(*words), tmp_path / "run")
    assert EventAccumulator(str(tmp_path / "run")).Reload().Tags()["images"] == []
    assert len([name for name in tree(tmp_path / "run") if "tfevents" in name]) == 1


@pytest.fixture
def page(logdir: Path) -> Iterator[str]:
    """TensorBoard itself, over the runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--port", str(port), "--host", "127.0.0.1"]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            time.sleep(0.5)
            try:
                with urllib.request.urlopen(f"{address}/data/runs", timeout=5) as answer:
                    if set(json.loads(answer.read())) == {"epn", "naive"}:
                        break
            except OSError:
                continue
        else:
            pytest.fail("TensorBoard did not show the runs")
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(
    not (BROWSER and DRIVER) and not os.environ.get("CI"), reason="needs chromium and chromedriver on the path"
)
def test_the_page_shows_forgetting_curves(page: str, tmp_path: Path) -> None:
    from selenium import webdriver

    assert BROWSER, "under CI there has to be a browser"
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"):
        options.add_argument(argument)
    for argument in ("--disable-background-networking", "--disable-component-update", "--window-size=1400,1100"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        browser.get(f"{page}/#custom_scalars")
        found = """
            const found = [];
            const walk = (node) => {
                if (node.shadowRoot) walk(node.shadowRoot);
                for (const child of node.children || []) walk(child);
                if (node.tagName === 'TF-CUSTOM-SCALAR-MULTI-LINE-CHART-CARD') {
                    const root = node.shadowRoot || node;
                    const text = (inner) => [inner.textContent || '',
                        ...[...inner.querySelectorAll('*')].filter((e) => e.shadowRoot).map((e) => text(e.shadowRoot))
                    ].join(' ');
                    found.push(text(root).replace(/\\s+/g, ' '));
                }
            };
            walk(document.body);
            return found;
        """
        for _ in range(60):
            time.sleep(0.5)
            cards = browser.execute_script(found)
            if cards and "(8)" in cards[0]:  # four tasks of each of two runs
                break
        assert cards, "no chart"
        assert "test accuracy of each task" in cards[0]
        assert "Matches (8)" in cards[0]
        time.sleep(3)  # while the lines grow in
        screenshot = tmp_path / "tensorboard.png"
        browser.save_screenshot(str(screenshot))
        if kept := os.environ.get("SCREENSHOTS"):
            shutil.copy(screenshot, Path(kept) / "tensorboard.png")
        colours = np.asarray(Image.open(screenshot).convert("RGB"))[80:400, 360:720].reshape(-1, 3).astype(int)
        coloured = colours[np.ptp(colours, axis=1) > 100]
        assert len(coloured) > 300, "lines of both runs"
    finally:
        browser.quit()
