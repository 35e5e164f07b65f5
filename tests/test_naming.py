"""How runs and groups are named: what differs is shown, what is the same is not."""

import subprocess
import sys
from typing import Any

import pytest

from cl_powerprop import naming
from cl_powerprop.composition import compose, group_name, naming_row


def run(strategy: str = "epn", seed: int = 0, **settings: Any) -> dict[str, Any]:
    """A row whose settings are written with `__` for a dot."""
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return {"strategy": strategy, "model": "mlp", "optimizer": "sgd", "seed": seed} | named


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([run(seed=0), run(seed=1)], ["epn, seed 0", "epn, seed 1"]),
        ([run(alpha=1.0), run(alpha=2.0)], ["epn, alpha 1, seed 0", "epn, alpha 2, seed 0"]),
        ([run(optimizer__lr=0.1), run(optimizer__lr=1e-3)], ["epn, lr 0.1, seed 0", "epn, lr 0.001, seed 0"]),
        ([run(strategy__gamma=0.9), run("naive")], ["epn, seed 0", "naive, seed 0"]),
        ([run(model="mlp"), run(model="convnet")], ["epn, mlp, seed 0", "epn, convnet, seed 0"]),
        ([run(data="mnist"), run(data="digits")], ["mnist, epn, seed 0", "digits, epn, seed 0"]),
        (
            [run(train__clip_norm=None), run(train__clip_norm=1.0)],
            ["epn, clip_norm null, seed 0", "epn, clip_norm 1, seed 0"],
        ),
        (
            [run(model__hidden="[20, 20]"), run(model__hidden="[30]")],
            ["epn, hidden [20, 20], seed 0", "epn, hidden [30], seed 0"],
        ),
        (
            [run(optimizer__nesterov=True), run(optimizer__nesterov=False)],
            ["epn, nesterov true, seed 0", "epn, nesterov false, seed 0"],
        ),
        (
            [run(optimizer__lr=0.1234561), run(optimizer__lr=0.1234564)],
            ["epn, lr 0.1234561, seed 0", "epn, lr 0.1234564, seed 0"],
        ),
        (
            [
                run(train__shift=1.0, data__shift=0.0),
                run(train__shift=0.0, data__shift=1.0),
                run(train__shift=0.0, data__shift=0.0),
            ],
            [f"epn, train.shift {train}, data.shift {data}, seed 0" for train, data in ((1, 0), (0, 1), (0, 0))],
        ),
        ([run(train__threads=1), run(train__threads=2)], ["epn, seed 0", "epn, seed 0"]),
    ],
)
def test_a_run_is_named_by_what_differs(rows: list[dict[str, Any]], names: list[str]) -> None:
    assert naming.run_names(rows) == names


def test_labels_tell_all_groups_apart_whatever_their_values() -> None:
    rows = {
        str(index): {"strategy": "epn", "x": value} for index, value in enumerate((1, "1", None, "null", [1], 1e-9))
    }
    labels = naming.labels(rows, ["strategy", "x"])
    assert len(set(labels.values())) == len(rows)


def test_a_table_has_columns_for_all_that_differs() -> None:
    rows = [run(alpha=1.0, optimizer__lr=0.1), run(alpha=2.0, optimizer__lr=0.2), run("naive", alpha=1.0)]
    columns = ["alpha", "model", "optimizer", "optimizer.lr", "strategy.gamma"]
    assert naming.differing(rows, columns) == ["alpha", "optimizer.lr"]
    assert naming.values(rows[2], ["strategy", "alpha", "optimizer.lr", "seed"], rows) == ["naive", "1", "-", "0"]
    assert naming.differing([run(strategy__gamma=0.9), run("naive")], columns) == [], "an option of one strategy only"
    assert naming.differing([run(strategy__gamma=0.9), run(strategy__gamma=0.8)], columns) == ["strategy.gamma"]


def test_what_labels_do_not_tell() -> None:
    """Settings that vary together are not all in a label, nor are those in which strategies differ."""
    rows = [
        run(alpha=1.0, optimizer__lr=0.1, model__hidden="[20]", strategy__gamma=0.9, train__clip_norm=None),
        run(alpha=2.0, optimizer__lr=0.5, model__hidden="[20]", strategy__gamma=0.9, train__clip_norm=None),
        run("naive", alpha=1.0, optimizer__lr=0.5, model__hidden="[30]", train__clip_norm=1.0),
    ]
    columns = ["alpha", "optimizer.lr", "model.hidden", "strategy.gamma", "train.clip_norm"]
    chosen = ["strategy", *naming.distinguishing(rows, columns)]
    assert list(naming.labels(dict(zip("abc", rows, strict=True)), chosen).values()) == [
        *("epn, alpha 1", "epn, alpha 2", "naive")
    ]
    assert naming.unlabelled(rows, columns, chosen) == {
        "alpha": "1, 2",  # that of naive
        "optimizer.lr": "0.1, 0.5",
        "model.hidden": "[20], [30]",
        "train.clip_norm": "1, null",
    }
    assert "alpha" not in naming.unlabelled(rows[:2], columns, chosen)
    many = [run(optimizer__lr=0.1 * index) for index in range(1, 8)]
    assert naming.unlabelled(many, columns, ["strategy"]) == {"optimizer.lr": "7 values from 0.1 to 0.7"}


def test_a_label_says_what_is_learned_where_that_is_asked_for() -> None:
    rows = {"a": run(scenario="class"), "b": run(scenario="task"), "c": run("naive", scenario="task")}
    assert list(naming.labels(rows, ["scenario", "strategy"]).values()) == [
        *("scenario class, epn", "scenario task, epn", "scenario task, naive")
    ]


def test_a_job_is_named_by_the_options_that_are_swept() -> None:
    overrides = {
        "seed": "1",
        "experiment": "quickstart/epn",
        "model.alpha": "1.0",
        "epn.gamma": "0.9",
        "data": "digits",
    }
    row = run(seed=1, model__alpha=1.0, data="digits")
    swept = ["seed", "experiment", "model.alpha", "epn.gamma"]
    assert naming.job_name(row, overrides, swept) == "quickstart/epn, alpha 1, gamma 0.9, seed 1"
    both = naming.job_name(row, {**overrides, "strategy": "epn"}, [*swept, "strategy"])
    assert both == "epn, quickstart/epn, alpha 1, gamma 0.9, seed 1"
    assert naming.job_name(row, overrides, [], seeds=3) == "epn, seeds 1 to 3"


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ([], ["seed=7"], ("epn", "epn")),
        (["model.alpha=1"], ["model.alpha=2"], ("epn, alpha 1", "epn")),
        (["optimizer.lr=0.25"], ["optimizer.lr=0.2500001"], ("epn, lr 0.25", "epn, lr 0.2500001")),
        (["strategy=naive"], ["strategy=naive", "optimizer=adamw"], ("naive", "naive, adamw")),
        (["benchmark.n_tasks=3"], ["data=digits"], ("epn, n_tasks 3", "epn, digits")),
        (["model.hidden=[20]"], ["train.clip_norm=1"], ("epn, hidden [20]", "epn, clip_norm 1")),
        (["train.threads=2"], ["logger=[tensorboard]"], ("epn", "epn")),
        (["strategy=naive", "sparsity=rigl"], ["strategy=naive"], ("naive, rigl", "naive")),
        (["strategy=naive", "sparsity=set"], ["strategy=naive", "sparsity=static"], ("naive, set", "naive, static")),
        (
            ["strategy=naive", "sparsity=rigl", "sparsity.target=0.8"],
            ["strategy=naive", "sparsity=rigl", "sparsity.every=50"],
            ("naive, rigl, target 0.8", "naive, rigl, every 50"),
        ),
        (
            ["strategy=naive", "train.steps=9"],
            ["model.init=truncated_normal"],
            ("naive, steps 9", "epn, init truncated_normal"),
        ),
    ],
)
def test_the_name_of_a_group_that_stands_alone(one: list[str], other: list[str], names: tuple[str, str]) -> None:
    """A dashboard shows runs that know nothing of each other: the same name means the same settings."""
    assert (group_name(compose(one)), group_name(compose(other))) == names


def test_jobs_of_sparse_training_are_named_by_their_controller() -> None:
    rows = [naming_row(compose(["strategy=naive", f"sparsity={name}"])) for name in ("rigl", "set", "none")]
    assert naming.run_names(rows) == ["rigl, seed 0", "set, seed 0", "dense, seed 0"]
    assert naming.job_name(rows[0], {"sparsity": "rigl", "rigl.target": "0.8"}, ["sparsity", "rigl.target"]) == (
        "naive, rigl, target 0.8, seed 0"
    )


def test_naming_imports_no_torch() -> None:
    code = "import sys, cl_powerprop.naming, cl_powerprop.output, cl_powerprop.analysis; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
