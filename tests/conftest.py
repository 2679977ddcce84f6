"""Two folders are collected only when they are asked for, as `make test-cluster` does: all in them is slow."""

from __future__ import annotations

from pathlib import Path

import pytest

APART = [Path(__file__).parent / name for name in ("cluster", "services")]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return (
        True if collection_path in APART and not any(path.is_relative_to(collection_path) for path in asked) else None
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in APART):
            item.add_marker(pytest.mark.slow)
