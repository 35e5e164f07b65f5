"""What a strategy from outside may train, in which order, and what of it a checkpoint can hold."""

import json
import linecache
from pathlib import Path

import numpy as np
import pytest

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.experiment import run
from cl_powerprop.references import config_hash, reference_config
from cl_powerprop.registry import import_modules

from ..run.conftest import compose_config
from ..run.test_whole_runs import read_matrix
from .conftest import OURS, Command, Module, OneLine, a_strategy

EVERY = "checkpoint.max_share=1"  # these runs are too short to have a checkpoint otherwise

pytestmark = pytest.mark.slow

TWICE = (
    a_strategy("twice")
    + """
    resumable = True

    def curriculum(self, stream, n_tasks):
        return [(task, experience) for task, experience in enumerate(stream) for _ in range(2)]
"""
)
ORDER = (
    a_strategy("ordered")
    + """
    def curriculum(self, stream, n_tasks):
        return {order}
"""
)
STATE = (
    a_strategy("stateful")
    + """
    resumable = True

    def state_dict(self):
        return {state}
"""
)


def test_an_experience_can_be_trained_twice(module: Module, command: Command) -> None:
    module("mine", TWICE)
    assert command("--import", "mine", "run", *OURS, "strategy=twice", "run_dir=twice") == 0
    assert command("run", *OURS, "strategy=naive", "run_dir=once") == 0
    record = json.loads(Path("twice/run.json").read_text())
    assert (record["status"], record["trained_tasks"], record["trained_experiences"]) == ("complete", 2, 4)
    assert len(record["task_seconds"]) == 4
    assert not np.array_equal(read_matrix(Path("twice")), read_matrix(Path("once")), equal_nan=True)
    assert read_matrix(Path("twice"))[-1].mean() > read_matrix(Path("once"))[-1].mean() - 0.2


@pytest.mark.parametrize(
    "order", ["[(1, stream[1]), (0, stream[0])]", "[(0, stream[0])]", "[]", "[(-1, stream[0]), (1, stream[1])]"]
)
def test_a_curriculum_that_leaves_tasks_out_is_one_line(
    order: str, module: Module, command: Command, one_line: OneLine
) -> None:
    module("mine", ORDER.format(order=order))
    assert command("--import", "mine", "run", *OURS, "strategy=ordered", "run_dir=run") == 2
    assert "training must go through the tasks in their order" in one_line()
    assert not Path("run/run.json").exists()


@pytest.mark.parametrize("state", ["{'a': {'x': torch.ones(2)}}", "{'a': np.float32(1)}", "{'a': object()}"])
def test_a_state_that_cannot_be_written_is_one_line(
    state: str, module: Module, command: Command, one_line: OneLine
) -> None:
    module("mine", "import torch\nimport numpy as np\n" + STATE.replace("{state}", state))
    assert command("--import", "mine", "run", *OURS, EVERY, "strategy=stateful", "run_dir=run") == 2
    assert "Mine.state_dict() must give JSON values, or tensors by name; 'a'" in one_line()


def test_two_names_of_one_tensor_can_be_written(module: Module, command: Command) -> None:
    text = STATE.replace("{state}", "dict.fromkeys(('a', 'b'), torch.ones(2))")
    module("mine", "import torch\n" + text)
    assert command("--import", "mine", "run", *OURS, EVERY, "strategy=stateful", "run_dir=run") == 0


def test_a_name_registered_twice_in_one_module(module: Module, command: Command, one_line: OneLine) -> None:
    module("mine", a_strategy("mine") + a_strategy("mine").replace("class Mine", "class Other"))
    assert command("--import", "mine", "list") == 2
    assert "strategy 'mine' is registered already" in one_line()


@pytest.mark.parametrize("make", ["3", "lambda config: None", "dict"])
def test_what_is_no_strategy(make: str, module: Module, command: Command, one_line: OneLine) -> None:
    module("mine", f"register_strategy('mine', StrategyConfig)({make})\n")
    assert command("--import", "mine", "list") == 2
    assert "is not a class derived from Strategy" in one_line()


@pytest.mark.parametrize(
    "words", [("run", "--import", "mine"), ("list", "--import=mine"), ("--import", "a/mine.py", "list")]
)
def test_an_import_in_the_wrong_place_or_shape(words: tuple[str, ...], command: Command, one_line: OneLine) -> None:
    assert command(*words) == 2
    line = one_line()
    assert "--import comes before the command" in line or "give the module's name" in line


def test_other_code_of_a_part_is_another_reference(module: Module) -> None:
    def hashed() -> str:
        return config_hash(reference_config(compose_config("model=sized", "data=digits"), "joint"))

    text = """
@dataclass(kw_only=True)
class Options(ModelConfig):
    units: int = 8

@register_model("sized", Options)
def sized(sample_shape, *, units, bias):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=bias))
"""
    module("sized_model", text)
    import_modules(["sized_model"])
    before = hashed()
    assert hashed() == before
    module("sized_model", text.replace("nn.Linear(64, 8", "nn.Linear(64, 80"))
    linecache.checkcache()
    assert hashed() != before


def test_a_strategy_that_needs_a_task_says_so_without_a_remedy(tmp_path: Path) -> None:
    config = compose_config("strategy=independent", "benchmark.scenario=domain", *OURS)
    with pytest.raises(ConfigurationError) as refused:
        run(config, tmp_path / "run")
    assert "entropy" not in str(refused.value)
    config = compose_config("strategy=epn", "benchmark.scenario=domain", *OURS)
    with pytest.raises(ConfigurationError, match=r"strategy\.task_inference=entropy infers it"):
        run(config, tmp_path / "run")
