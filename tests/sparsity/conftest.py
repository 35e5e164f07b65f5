"""The contracts run over every layer type, optimizer and strategy; those of whole networks are slow together."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "sparsity" in item.nodeid and any(name in item.name for name in ("resnet18", "convnet")):
            item.add_marker(pytest.mark.slow)
