"""What all tests of what the API server runs have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before tests get the group of their file
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave tests that need Airflow's database and server to one process, since those take seconds to make."""
    for item in items:
        if FOLDER in item.path.parents and {"database", "server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("plugins"))
