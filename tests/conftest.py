"""Settings of every test: one thread, since more only slow small networks down, a fixed global seed, the device."""

import gc
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from . import devices


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the networks in tests marked `cuda`: cpu or cuda")


def pytest_collection_finish() -> None:
    """Leave thousands of collected tests out of each garbage collection: some tests limit the processor's time."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    devices.choose(config.getoption("--device"))


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter", config: pytest.Config) -> None:
    """Beside the slowest tests (`--durations`), list the slowest files: many quick tests take long together."""
    if config.getoption("durations") is None:
        return
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.write_sep("=", f"{sum(seconds.values()):.0f} s in all; the slowest files")
    for file, duration in seconds.most_common(config.getoption("durations") or None):
        terminalreporter.write_line(f"{duration:.0f}s {file}")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)
