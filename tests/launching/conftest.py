from collections.abc import Callable

import pytest

from .sweeps import ended, numbers

Serial = Callable[[tuple[str, ...], int], dict[int, bytes]]


@pytest.fixture(scope="session")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Serial:
    """Return what the first so many seeds measure when they run one after the other in one process."""
    measured: dict[tuple[str, ...], dict[int, bytes]] = {}

    def get(words: tuple[str, ...], seeds: int) -> dict[int, bytes]:
        if len(measured.get(words, ())) < seeds:
            sweep = tmp_path_factory.mktemp("serial") / "sweep"
            code, _, errors = ended(*words, f"seed=range({seeds})", f"run_dir={sweep}", "hydra/launcher=basic")
            assert code == 0, errors
            measured[words] = numbers(sweep)
        return {number: measured[words][number] for number in range(seeds)}

    return get
