"""Every strategy in every scenario, with each kind of head and of bias: it runs, or is refused before training."""

from pathlib import Path

import pytest

from cl_powerprop import run
from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError

from .conftest import shipped

pytestmark = pytest.mark.slow

SMALL = (
    *("data=digits", "benchmark.n_tasks=2", "train.epochs=2", "train.batch_size=300", "model.hidden=[8]"),
    *("progress=false", "save_model=false", "checkpoint.every_epochs=null", "checkpoint.every_seconds=null"),
)
SETTINGS = {
    "task, per_task": ("benchmark=permuted", "benchmark.scenario=task", "model.heads=per_task", "model.bias=per_task"),
    "task, shared": ("benchmark=rotated", "benchmark.scenario=task", "model.heads=shared", "model.bias=none"),
    "domain, shared": ("benchmark=rotated", "benchmark.scenario=domain", "model.heads=shared", "model.bias=frozen"),
    "domain, per_task": ("benchmark=permuted", "benchmark.scenario=domain", "model.heads=per_task"),
    "class, shared": (*("benchmark=split", "benchmark.scenario=class"), "model.heads=shared", "model.bias=per_task"),
    "class, per_task": ("benchmark=split", "benchmark.scenario=class", "model.heads=per_task"),
}
TELLS_NO_TASK = "needs to know the task when it is tested"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("strategy", shipped("strategy"))
def test_a_strategy_in_a_scenario(strategy: str, setting: str, tmp_path: Path) -> None:
    words = [*SMALL, *SETTINGS[setting], f"strategy={strategy}"]
    needs_task = compose(words).make_strategy().needs_task or "per_task" in setting
    if needs_task and not setting.startswith("task"):
        with pytest.raises(ConfigurationError, match=TELLS_NO_TASK):
            run(words, tmp_path / "run", quiet=True)
        assert not (tmp_path / "run").exists()
        return
    record = run(words, tmp_path / "run", quiet=True).record
    assert (record["status"], record["trained_tasks"]) == ("complete", 2)
