"""The share of a run's time that its checkpoints take, at the default interval and at others."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from cl_powerprop import experiment
from cl_powerprop.checkpointing import make_checkpoints
from cl_powerprop.composition import compose
from cl_powerprop.training.checkpoints import Checkpoints

NETWORKS = {
    "mlp": ("model=mlp",),
    "convnet": ("model=convnet", "model.norm=batch", "model.bias=per_task"),
}
INTERVALS = {
    "default": (),
    "every epoch": ("checkpoint.max_share=1",),
    "none": ("checkpoint.every_epochs=null", "checkpoint.every_seconds=null", "checkpoint.max_share=1e-9"),
}


def measure(words: list[str], networks: list[str], repeats: int) -> pd.DataFrame:
    """Return one row for each network, interval and repeat; what is compared takes turns.

    ``share`` is the time that was spent on writing checkpoints and models, of all that the run took, sinks included.
    """
    rows = []
    for repeat in range(repeats):
        for network in networks:
            for interval, options in INTERVALS.items():
                about = {"network": network, "interval": interval, "repeat": repeat}
                rows.append(about | _run([*NETWORKS[network], *options, *words]))
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def _run(words: list[str]) -> dict[str, Any]:
    made: list[Checkpoints] = []
    written = 0

    class Counted(Checkpoints):
        def _save(self) -> None:
            nonlocal written
            written += 1
            super()._save()

    def keep(*args: Any) -> Checkpoints:
        made.append(make_checkpoints(*args))
        made[0].__class__ = Counted
        return made[0]

    experiment.make_checkpoints = keep
    with tempfile.TemporaryDirectory(dir=".") as folder:
        result = experiment.run(compose(["progress=false", *words]), Path(folder, "run"))
        seconds = json.loads((result.path / "run.json").read_text())["seconds"]
    spent = made[0].seconds
    return {"total": seconds["total"], "written": written, "spent": spent, "share": spent / seconds["total"]}


def main() -> None:
    """Print the rows, and their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="one or more; all by default")
    parser.add_argument("overrides", nargs="*", help="of the runs, as in train.epochs=5")
    arguments = parser.parse_args()
    rows = measure(arguments.overrides, arguments.network or list(NETWORKS), arguments.repeats)
    print(
        rows.groupby(["network", "interval"], sort=False).median(numeric_only=True).drop(columns="repeat").to_string()
    )


if __name__ == "__main__":
    main()
