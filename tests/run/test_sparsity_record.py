"""What a run records of sparse training: `sparsity.csv`, facts, metrics, curves and lines of progress."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from cl_powerprop import RecordingPlugin
from cl_powerprop.assemble import assemble
from cl_powerprop.errors import RunFolderError
from cl_powerprop.evaluation.flops import count_flops
from cl_powerprop.experiment import open_results, run
from cl_powerprop.learning import learn
from cl_powerprop.networks.build import build_model
from cl_powerprop.plugins.sparse_training import SparseTraining
from cl_powerprop.results.efficiency import measure_efficiency
from cl_powerprop.results.sparsity import SparsityTable
from cl_powerprop.results.tables import SPARSITY as FILE
from cl_powerprop.results.tables import Tables
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.sparsity import RigL, powerpropagate, select_task
from cl_powerprop.tracking.stream import Row

from ..doors.test_recording import make_benchmark, small, stock
from .conftest import Finished, compose_config, tiny_config

SINGLE = (
    *("benchmark=single", "data=digits", "model=mlp", "model.hidden=[16,12]", "model.heads=shared"),
    *("strategy=naive", "train.epochs=4", "train.batch_size=100", "progress=false"),
)


def measured(epoch: int, active: Sequence[int], step: int | None = None, task: int = 0) -> list[dict[str, Any]]:
    """The rows of layers of 100, 200, ... weights, as the plugin has them."""
    counts = {"ever_active": 100, "dropped": 0, "grown": 0, "regrown": 0, "dead_units": 0}
    where = {"task": task, "epoch": epoch, "step": 10 * epoch if step is None else step}
    return [
        where | {"layer": f"layer{index}", "weights": 100 * (index + 1), "active": kept} | counts
        for index, kept in enumerate(active)
    ]


# --- FLOPs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_flops_are_those_of_every_layer(alpha: float) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=2)),
        *(nn.Flatten(), nn.Linear(8 * 4 * 4, 10)),
    )
    powerpropagate(model, alpha)
    flops = count_flops(model, (3, 10, 10))
    # Twice the multiplications: for each output, as many as a unit has weights.
    expected = {"0": 2 * 8 * 100 * 27, "3": 2 * 8 * 16 * 36, "5": 2 * 10 * 128}
    assert flops.layers == expected
    assert flops.total == sum(expected.values())


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(8, 2))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    count_flops(model, (1, 4, 4))
    assert [module.training for module in model.modules()] == [True, True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_has_no_density_is_dense() -> None:
    flops = count_flops(nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5)), (10,))
    assert flops.relative({}) == 1.0
    assert flops.relative({"0": 0.25}) == pytest.approx((0.25 * 400 + 200) / 600)
    assert flops.relative({"0": 0.0, "1": 0.0}) == 0.0


def test_heads_that_are_not_masked_are_dense() -> None:
    options = vars(compose_config(*SINGLE, "model.heads=per_task").model)
    model = build_model(**options, sample_shape=[1, 8, 8], classes=[10, 10], init_seed=0, independent=False)
    flops = count_flops(model, (1, 8, 8))
    hidden = 2 * (64 * 16 + 16 * 12)
    assert flops.total == hidden + 2 * 12 * 10, "one head is used"
    assert flops.relative({"features.1": 0.5, "features.3": 0.5}) == pytest.approx(
        (0.5 * hidden + 240) / (hidden + 240)
    )


# --- the table ------------------------------------------------------------------------------------------------------


def test_rows_become_a_file_and_curves(tmp_path: Path) -> None:
    table = SparsityTable()
    assert table.last is None
    ((whole, layers),) = table.add(0, measured(1, [50, 20]))
    assert whole == Row(0, 1, 10, 0, "train", "sparsity", pytest.approx(1 - 70 / 300))
    assert [row.value for row in layers] == [0.5, 0.9]
    assert [row.curve for row in (whole, *layers)] == ["sparsity/all", "sparsity/layer0", "sparsity/layer1"]
    assert table.last == pytest.approx(1 - 70 / 300)
    tables = Tables(RunFolder(tmp_path / "run"))
    table.write(tables, "abc")
    table.write(tables, "abc")  # there is nothing new
    tables.flush()
    frame = pd.read_csv(tmp_path / "run" / FILE)
    assert list(frame) == ["run_id", *measured(1, [1])[0]]
    assert frame["active"].tolist() == [50, 20]


def test_a_resumed_run_keeps_the_rows_of_its_checkpoint_only(tmp_path: Path) -> None:
    folder, table = RunFolder(tmp_path / "run"), SparsityTable()
    tables = Tables(folder)
    list(table.add(0, measured(1, [50, 20])))
    table.write(tables, "abc")
    state = json.loads(json.dumps(tables.state_dict()))
    list(table.add(0, measured(2, [40, 20])))
    table.write(tables, "abc")
    tables.flush()
    again = SparsityTable()
    again.load(Tables(folder).find(state))
    assert again.rows == table.rows[:2]
    again.load({})
    assert again.rows == [], "a run of an earlier version"
    with pytest.raises(RunFolderError, match=r"sparsity\.csv cannot be read"):
        again.load({FILE: b"run_id,task\nabc,0\n"})


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Any:
    options = ("sparsity=rigl", "sparsity.target=0.8", "sparsity.every=5", "sparsity.exempt=[last]")
    return run(compose_config(*SINGLE, *options), tmp_path_factory.mktemp("runs") / "rigl")


def test_a_sparse_run_says_what_it_is(sparse: Any) -> None:
    record = json.loads((sparse.path / "run.json").read_text())
    assert (record["controller"], record["target_sparsity"]) == ("rigl", 0.8)
    assert record["exempt_layers"] == {"output": 120}
    frame = pd.read_csv(sparse.path / FILE)
    assert frame["layer"].tolist() == ["features.1", "features.3"] * 4
    assert frame["epoch"].tolist() == sorted([1, 2, 3, 4] * 2)
    weights = [64 * 16, 16 * 12]
    assert frame["weights"].tolist() == weights * 4
    last = frame[frame["epoch"] == 4]
    assert record["metrics"]["sparsity"] == pytest.approx(1 - last["active"].sum() / sum(weights))
    assert record["metrics"]["sparsity"] == pytest.approx(0.8, abs=1 / sum(weights))
    assert last["grown"].sum() == last["dropped"].sum() > 0
    curves = pd.read_csv(sparse.path / "curves.csv").query("metric == 'sparsity'")
    assert curves["value"].tolist() == pytest.approx([record["metrics"]["sparsity"]] * 4)
    assert curves["step"].tolist() == frame["step"].tolist()[::2]


def test_flops_of_a_sparse_run(sparse: Any) -> None:
    metrics = sparse.record["metrics"]
    last = pd.read_csv(sparse.path / FILE).query("epoch == 4").set_index("layer")
    sizes, dense = {"features.1": 64 * 16, "features.3": 16 * 12}, 12 * 10
    kept = last["active"].sum() + dense  # all layers are linear: one multiplication for each weight
    assert metrics["inference_flops"] == pytest.approx(kept / (sum(sizes.values()) + dense))
    # The masks of all steps are as large; what RigL computes beside is dense gradients of the weights.
    assert metrics["inference_flops"] <= metrics["training_flops"] < metrics["inference_flops"] + 1 / 3


def test_flops_of_training_are_those_of_all_its_steps(tmp_path: Path) -> None:
    options = ("sparsity=gradual", "sparsity.target=0.9", "sparsity.every=1")
    result = run(compose_config(*SINGLE, *options), tmp_path / "run")
    frame = pd.read_csv(result.path / FILE)
    first, last = (frame[frame["step"] == step] for step in (frame["step"].min(), frame["step"].max()))
    low, high = (rows["active"].sum() / rows["weights"].sum() for rows in (last, first))
    assert result.record["metrics"]["inference_flops"] == pytest.approx(low)
    assert low < result.record["metrics"]["training_flops"] < 1.0
    assert high > low


def test_dense_runs_are_dense(finished: Finished) -> None:
    record = finished("naive-momentum-shared").record
    assert (record["controller"], record["target_sparsity"], record["exempt_layers"]) == (None, None, {})
    found = {name: record["metrics"][name] for name in ("sparsity", "training_flops", "inference_flops")}
    assert found == {"sparsity": 0.0, "training_flops": 1.0, "inference_flops": 1.0}
    assert not (finished("naive-momentum-shared").path / FILE).exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["packnet-nesterov-shared", "epn-momentum-frozen-biases"])
def test_masks_of_tasks_make_each_of_them_sparse(finished: Finished, name: str) -> None:
    result = finished(name)
    capacity = pd.read_csv(result.path / "capacity.csv").query("kind == 'masked'")
    tasks = capacity.groupby("task")[["kept", "weights"]].sum()
    metrics = result.record["metrics"]
    assert metrics["sparsity"] == pytest.approx((1 - tasks["kept"] / tasks["weights"]).mean())
    assert metrics["training_flops"] is None
    heads = 0 if "shared" in name else 20 * 10  # a shared output layer has a mask
    expected = (tasks["kept"] + heads) / (tasks["weights"] + heads)  # one multiplication for each weight
    assert metrics["inference_flops"] == pytest.approx(expected.mean())


@pytest.mark.slow
def test_flops_do_not_depend_on_what_was_tested_last(tmp_path: Path) -> None:
    """Heads of two and five outputs; a run that goes on after its last test has none of them selected."""
    config = compose_config(
        *("data=digits", "benchmark=split", "benchmark.n_tasks=2", "benchmark.classes=[[0,1],[2,3,4,5,6]]"),
        *("strategy=packnet", "train.epochs=2", "model.hidden=[20]", "progress=false"),
    )
    parts = assemble(config)
    results = open_results(config, tmp_path / "run", parts, multirun=None, quiet=True)
    learn(parts, results)
    kept = results.capacity.rows
    efficiency = measure_efficiency(parts, kept)
    assert results.as_json()["metrics"]["inference_flops"] == efficiency.inference_flops
    for task in range(2):
        select_task(parts.learner.model, task)
        assert measure_efficiency(parts, kept) == efficiency
    layers = sum(row.kept for row in kept if row.kind == "masked") / 2
    assert efficiency.inference_flops == pytest.approx((layers + 20 * 5) / (64 * 20 + 20 * 5))


def test_lines_of_progress_say_how_sparse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in SINGLE if not word.startswith("progress")]
    run(compose_config(*words, "sparsity=static", "sparsity.target=0.75"), tmp_path / "run")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("task 1/1"))
    sparsity = json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]["sparsity"]
    assert f"sparsity {100 * sparsity:.1f} %" in line
    assert "capacity" not in line


@pytest.mark.slow
def test_dashboards_show_each_layer(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(compose_config(*SINGLE, "sparsity=set", "sparsity.every=5", "logger=[tensorboard]"), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    frame = pd.read_csv(tmp_path / "run" / FILE)
    for layer, rows in frame.groupby("layer"):
        shown = events.Scalars(f"sparsity/{layer}")
        assert [event.value for event in shown] == pytest.approx((1 - rows["active"] / rows["weights"]).tolist())
        assert [event.step for event in shown] == rows["step"].tolist()
    assert len(events.Scalars("sparsity/all")) == 4


@pytest.mark.slow
def test_a_sequence_of_tasks_is_one_sparse_training(tmp_path: Path) -> None:
    words = ("strategy=naive", "model.heads=shared", "sparsity=gradual", "sparsity.target=0.9")
    result = run(tiny_config(*words, "sparsity.every=5"), tmp_path / "run")
    frame = pd.read_csv(result.path / FILE)
    assert frame.groupby("task")["epoch"].unique().map(list).tolist() == [[1, 2]] * 3
    assert frame["step"].is_monotonic_increasing
    density = frame.groupby("step")["active"].sum() / frame.groupby("step")["weights"].sum()
    assert density.is_monotonic_decreasing
    assert result.record["metrics"]["sparsity"] == pytest.approx(1 - density.iloc[-1])


def test_a_loop_of_ones_own_is_recorded_too(tmp_path: Path) -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin(tmp_path / "mine", benchmark, benchmark="pictures", seed=4)
    learner = stock(SupervisedTemplate, small(), train_epochs=2, plugins=[recording])
    learner.plugins.insert(
        1, SparseTraining(RigL(learner.model, learner.optimizer, sparsity=0.5, every=2, stop=8), 10**6)
    )
    for experience in benchmark.train_stream:
        learner.train(experience)
        learner.eval(benchmark.test_stream)
    record = json.loads((tmp_path / "mine" / "run.json").read_text())
    assert (record["status"], record["controller"], record["target_sparsity"]) == ("complete", "RigL", 0.5)
    assert record["metrics"]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert record["metrics"]["training_flops"] is None, "nobody said what the samples are like"
    frame = pd.read_csv(tmp_path / "mine" / FILE)
    assert frame.groupby("task")["epoch"].unique().map(list).tolist() == [[1, 2]] * 2


def test_a_loop_of_ones_own_without_it_says_nothing(tmp_path: Path) -> None:
    benchmark = make_benchmark(2)
    recording = RecordingPlugin(tmp_path / "mine", benchmark, benchmark="pictures", seed=4)
    learner = stock(SupervisedTemplate, small(), train_epochs=1, plugins=[recording])
    for experience in benchmark.train_stream:
        learner.train(experience)
    recording.close()
    metrics = json.loads((tmp_path / "mine" / "run.json").read_text())["metrics"]
    assert metrics["sparsity"] is metrics["training_flops"] is metrics["inference_flops"] is None
