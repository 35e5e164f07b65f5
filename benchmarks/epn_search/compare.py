"""EPN's searches compared: what each takes on the same trained networks, and what whole runs with each come to.

python benchmarks/epn_search/compare.py                                                  # the embedded digits
CL_POWERPROP_DATA=... python benchmarks/epn_search/compare.py digits mnist omniglot      # as recorded

Finished runs are kept in the two CSV files of ``--out`` and are not repeated: a call that was cut off goes on.
"""

import argparse
import tempfile
from pathlib import Path
from unittest import mock

import pandas as pd

import cl_powerprop
from cl_powerprop.plugins.epn import DEFAULT_SPARSITIES
from cl_powerprop.plugins.search import SEARCH_BY_NAME, Holds, grid

HERE = Path(__file__).parent
NAMES = tuple(SEARCH_BY_NAME)
SEEDS = (0, 1, 2)
SETTINGS = {
    "digits": ["experiment=quickstart/epn", "data=digits"],
    "mnist": [
        *("experiment=permuted_mnist_10/epn", "benchmark.n_tasks=3"),
        *("train.epochs=2", "strategy.retrain_epochs=1", "train.batch_size=64"),
    ],
    "omniglot": [
        *("experiment=omniglot/epn", "benchmark.n_tasks=5", "model.width=32", "model.norm=batch"),
        *("train.epochs=12", "strategy.retrain_epochs=6", "strategy.gamma=0.94"),
    ],
}


class Profile:
    """A search that measures the whole grid, keeps which masks hold, and takes what the grid search takes."""

    def __init__(self) -> None:
        self.tasks: list[str] = []  # of each task, the sparsest first: 1 where the mask holds, 0 where it fails

    def __call__(self, size: int, holds: Holds, last: int | None) -> int | None:
        outcomes = [holds(index) for index in range(size)]
        self.tasks.append("".join("01"[held] for held in outcomes))
        return grid(size, outcomes.__getitem__, last)


def measure(data: str, search: str, seed: int) -> dict[str, object]:
    """Return the row of one run."""
    words = [*SETTINGS[data], f"strategy.search={search}", f"seed={seed}", "progress=false", "save_model=false"]
    with tempfile.TemporaryDirectory() as folder:
        record = cl_powerprop.run(words, Path(folder) / "run", quiet=True).record
    return {
        "data": data,
        "search": search,
        "seed": seed,
        "accuracy": record["metrics"]["average_accuracy"],
        "capacity_used": record["metrics"]["capacity_used"],
        "evaluations": sum(found["evaluations"] for found in record["searches"]) / record["n_tasks"],
        "train_seconds": record["seconds"]["train"],
        "search_seconds": record["seconds"]["search"],
    }


def choices(profiles: pd.DataFrame) -> pd.DataFrame:
    """Return what each search takes on the same networks: a row per data, seed, task and search."""
    rows = []
    for (data, seed), tasks in profiles.groupby(["data", "seed"], sort=False):
        last = None
        for task, pattern in zip(tasks.task, tasks.holds, strict=True):
            outcomes = [mark == "1" for mark in pattern]
            taken = {name: SEARCH_BY_NAME[name](len(outcomes), outcomes.__getitem__, last) for name in NAMES}
            monotone = outcomes == sorted(outcomes)
            for name, index in taken.items():
                density = 1.0 if index is None else 1.0 - DEFAULT_SPARSITIES[index]
                as_grid = index == taken["grid"]
                rows.append((data, seed, task, monotone, name, density, as_grid))
            last = len(outcomes) - 1 if taken["grid"] is None else taken["grid"]
    return pd.DataFrame(rows, columns=["data", "seed", "task", "monotone", "search", "density", "as_grid"])


def same_networks(profiles: pd.DataFrame) -> pd.DataFrame:
    """Return the table of what each search takes on the same networks."""
    taken = choices(profiles).groupby(["data", "search"], sort=False)
    return pd.DataFrame(
        {
            "tasks": taken.size(),
            "of them monotone": taken.monotone.sum(),
            "as grid": taken.as_grid.sum(),
            "size of the mask": taken.density.mean().map("{:.1%}".format),
        }
    ).reset_index()


def whole_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the table of whole runs: means, and standard deviations over seeds."""
    grouped = runs.groupby(["data", "search"], sort=False)
    mean, spread = (getattr(grouped[["accuracy", "capacity_used"]], name)() for name in ("mean", "std"))
    return pd.DataFrame(
        {
            "average accuracy": mean.accuracy.map("{:.4f}".format) + spread.accuracy.map(" ± {:.4f}".format),
            "capacity used": mean.capacity_used.map("{:.1%}".format) + spread.capacity_used.map(" ± {:.1%}".format),
            "masks measured a task": grouped.evaluations.mean().map("{:.1f}".format),
            "search, of training": (grouped.search_seconds.sum() / grouped.train_seconds.sum()).map("{:.1%}".format),
        }
    ).reset_index()


def markdown(table: pd.DataFrame) -> str:
    rows = [list(table), ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def kept(path: Path) -> list[dict[str, object]]:
    return pd.read_csv(path, dtype={"holds": str}).to_dict("records") if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["digits"], help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of runs.csv and profiles.csv")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {name: arguments.out / f"{name}.csv" for name in ("runs", "profiles")}
    runs, profiles = kept(files["runs"]), kept(files["profiles"])
    for data in arguments.data:
        for seed in SEEDS:
            done = {row["search"] for row in runs if (row["data"], row["seed"]) == (data, seed)}
            for search in (name for name in NAMES if name not in done):
                runs.append(measure(data, search, seed))
                pd.DataFrame(runs).to_csv(files["runs"], index=False, float_format="%.6g")
            if (data, seed) not in {(row["data"], row["seed"]) for row in profiles}:
                profile = Profile()
                with mock.patch.dict(SEARCH_BY_NAME, grid=profile):
                    measure(data, "grid", seed)
                profiles += [
                    {"data": data, "seed": seed, "task": task, "holds": pattern}
                    for task, pattern in enumerate(profile.tasks)
                ]
                pd.DataFrame(profiles).to_csv(files["profiles"], index=False)
    print(markdown(same_networks(pd.DataFrame(profiles))), markdown(whole_runs(pd.DataFrame(runs))), sep="\n\n")


if __name__ == "__main__":
    main()
