"""Sparse training compared: every controller with Powerpropagation's alpha 1 to 4, at several sparsities.

python benchmarks/sparse_training/compare.py --quick                                          # the embedded digits
CL_POWERPROP_DATA=... python benchmarks/sparse_training/compare.py lenet_300_100 lenet5      # as recorded

Each pair of controller and alpha has the same number of trials for its learning rate, judged on validation data at one
sparsity, with a seed that is not reported. Finished trials and runs are kept in the CSV files of ``--out`` and are not
repeated: a call that was cut off goes on.
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).parent
CONTROLLERS = ("one_shot", "iterative", "gradual", "static", "set", "rigl", "top_kast")
OPTIONS = {"one_shot": ["sparsity.stop=0.5"]}  # the second half of training is retraining
TUNING_SEED = 1000


@dataclass(frozen=True)
class Setting:
    """A network and its data.

    Attributes:
        words: overrides of all its runs.
        controllers, alphas, sparsities, seeds: what is run, each with each.
        rates: learning rates that are tried.
        tuned_at: the sparsity of the trials.
    """

    words: tuple[str, ...]
    controllers: tuple[str, ...] = CONTROLLERS
    alphas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)
    sparsities: tuple[float, ...] = (0.98, 0.99, 0.95, 0.9)
    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    tuned_at: float = 0.98


SHARED = ("benchmark=single", "model.init_scale=1.0", "model.bias=frozen", "optimizer.momentum=0.9")
MNIST = (*SHARED, "data=mnist", "benchmark.validation=5000", "train.batch_size=128")
SETTINGS = {
    "digits": Setting(
        (*SHARED, "data=digits", "model=mlp", "train.epochs=5"),
        ("gradual", "rigl"),
        (1.0, 2.0),
        (0.9,),
        (0,),
        (0.05, 0.1),
        0.9,
    ),
    "lenet_300_100": Setting((*MNIST, "model=lenet_300_100", "train.epochs=4")),
    "lenet_300_100_long": Setting(
        (*MNIST, "model=lenet_300_100", "train.epochs=20"),
        controllers=("gradual", "static", "set", "rigl", "top_kast"),
        alphas=(1.0, 2.0),
        sparsities=(0.98,),
        rates=(0.1, 0.3),
    ),
    "lenet5": Setting(
        (*MNIST, "model=lenet5", "train.epochs=2"), alphas=(1.0, 2.0), sparsities=(0.98, 0.99), rates=(0.1, 0.3)
    ),
    "omniglot": Setting(
        (*SHARED, "data=omniglot", "data.characters=background", "model=convnet", "model.width=32", "train.epochs=10"),
        controllers=("gradual", "set", "rigl", "top_kast"),
        alphas=(1.0, 2.0),
        sparsities=(0.9, 0.8),
        rates=(0.03, 0.1),
        tuned_at=0.9,
    ),
}
COLUMNS = ("network", "controller", "alpha", "sparsity", "lr", "seed")
TRIAL = ["network", "controller", "alpha", "lr"]
RUN = ["network", "controller", "alpha", "sparsity", "seed"]
MEASURED = {
    "accuracy": "average_accuracy",
    "validation": "validation_accuracy",
    "reached": "sparsity",
    "training_flops": "training_flops",
    "inference_flops": "inference_flops",
}


def measure(network: str, controller: str, alpha: float, sparsity: float, lr: float, seed: int) -> dict[str, Any]:
    """Return what one run measured; a run that diverges has no figures."""
    import cl_powerprop
    from cl_powerprop.errors import DivergedError

    words = [*SETTINGS[network].words, f"model.alpha={alpha}", f"optimizer.lr={lr}", f"seed={seed}"]
    if controller != "dense":
        words += [f"sparsity={controller}", f"sparsity.target={sparsity}", *OPTIONS.get(controller, [])]
    with tempfile.TemporaryDirectory() as folder:
        try:
            ended = cl_powerprop.run([*words, "progress=false", "save_model=false"], Path(folder) / "run", quiet=True)
        except DivergedError:
            return {"status": "diverged"}
    metrics = ended.record["metrics"]
    return {"status": "complete"} | {column: metrics.get(name) for column, name in MEASURED.items()}


class Table:
    """Rows in a CSV file, each measured once.

    Args:
        path: of the file.
        keys: the columns that say what was measured.
    """

    def __init__(self, path: Path, keys: list[str]) -> None:
        self.path = path
        self.keys = keys
        self.rows: list[dict[str, Any]] = pd.read_csv(path).to_dict("records") if path.exists() else []

    def fill(self, wanted: Iterable[dict[str, Any]], pool: ProcessPoolExecutor) -> None:
        """Measure the rows that are missing."""
        have = {tuple(row[key] for key in self.keys) for row in self.rows}
        missing = [each for each in wanted if tuple(each[key] for key in self.keys) not in have]
        waiting = {pool.submit(measure, **each): each for each in missing}
        for number, job in enumerate(as_completed(waiting), start=1):
            self.rows.append(waiting[job] | job.result())
            self.frame().to_csv(self.path, index=False)
            shown = ", ".join(f"{key} {value}" for key, value in waiting[job].items())
            accuracy = self.rows[-1].get("accuracy")
            print(f"{self.path.stem} {number}/{len(missing)}: {shown}: {accuracy}", flush=True)

    def frame(self) -> pd.DataFrame:
        """Return all rows in order."""
        return pd.DataFrame(self.rows).sort_values(self.keys, ignore_index=True)


def pairs(network: str) -> Iterator[tuple[str, float]]:
    """Yield each controller with each alpha, dense training first."""
    setting = SETTINGS[network]
    yield from itertools.product(("dense", *setting.controllers), setting.alphas)


def trials(network: str) -> Iterator[dict[str, Any]]:
    """Yield the trials of each learning rate."""
    setting = SETTINGS[network]
    for (controller, alpha), lr in itertools.product(pairs(network), setting.rates):
        sparsity = 0.0 if controller == "dense" else setting.tuned_at
        values = (network, controller, alpha, sparsity, lr, TUNING_SEED)
        yield dict(zip(COLUMNS, values, strict=True))


def runs(network: str, rates: dict[tuple[str, float], float]) -> Iterator[dict[str, Any]]:
    """Yield the runs to report, with the learning rates that the trials chose."""
    setting = SETTINGS[network]
    for sparsity, seed, (controller, alpha) in itertools.product(setting.sparsities, setting.seeds, pairs(network)):
        at = 0.0 if controller == "dense" else sparsity
        lr = rates[controller, alpha]
        yield dict(zip(COLUMNS, (network, controller, alpha, at, lr, seed), strict=True))


def chosen_rates(tried: pd.DataFrame, network: str) -> dict[tuple[str, float], float]:
    """Return the learning rate with the best validation accuracy for each controller and alpha."""
    judged = tried[tried.network == network].fillna({"validation": -1.0})
    best = judged.loc[judged.groupby(["controller", "alpha"])["validation"].idxmax()]
    return {(row.controller, row.alpha): row.lr for row in best.itertuples()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["lenet_300_100"], help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--quick", action="store_true", help="the embedded digits only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the CSV files")
    options = parser.parse_args()
    networks = ["digits"] if options.quick else options.networks
    if unknown := set(networks) - set(SETTINGS):
        parser.error(f"unknown: {', '.join(unknown)}; choose from: {', '.join(SETTINGS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.jobs) as pool:
        for network in networks:
            tried, ran = Table(options.out / "trials.csv", TRIAL), Table(options.out / "runs.csv", RUN)
            tried.fill(trials(network), pool)
            rates = chosen_rates(tried.frame(), network)
            wanted = {tuple(each[key] for key in RUN): each for each in runs(network, rates)}
            ran.fill(wanted.values(), pool)


if __name__ == "__main__":
    main()
