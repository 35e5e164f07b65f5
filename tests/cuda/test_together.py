"""Seeds that train together on a GPU: each run is that of its seed alone up to rounding, and forgets nothing.

`tests/training/test_stacked.py` compares their tensors in float64, on a GPU too.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cl_powerprop.seeds_together import run_together

from ..run.conftest import compose_config
from ..run.test_whole_runs import read_matrix, read_record
from .runs import train, words_of

SEEDS = 3
NAMES = ["naive", "naive, clipped", "packnet", "packnet, adamw", "epn", "epn, adam", "ewc", "joint", "independent"]


@pytest.mark.parametrize("graphs", ["false", "auto"])
@pytest.mark.parametrize("name", NAMES)
def test_each_seed_learns_what_it_learns_alone(name: str, graphs: str, tmp_path: Path) -> None:
    words = (f"train.cuda_graphs={graphs}", "evaluation.schedule=every_task")
    config = compose_config(*words_of(name, *words, f"seeds_together={SEEDS}"))
    for seed, together in enumerate(run_together(config, tmp_path / "together", quiet=True)):
        alone = train(tmp_path / f"alone-{seed}", name, *words, f"seed={seed}")
        records = [read_record(each.path) for each in (alone, together)]
        for key in ("status", "seed", "zero_forgetting_verified"):
            assert records[0][key] == records[1][key]
        losses = [
            pd.read_csv(each.path / "curves.csv").query("split == 'train' and metric == 'loss'").value.to_numpy()
            for each in (alone, together)
        ]
        np.testing.assert_allclose(losses[0][:2], losses[1][:2], rtol=1e-3)  # later, rounding grows
        np.testing.assert_allclose(read_matrix(alone.path), read_matrix(together.path), atol=0.06)
