"""The Airflow, the browser and the people at it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.site import Site, running_site
from tests.browser.viewer import PATIENCE_MS, Viewer, new_context
from tests.harness.airflow_database import make_database

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium")
TIMEOUT_S = 1200
# Runs that end by themselves, or never: they are started first, so that no test needs to wait for them.
EARLY = ("holds", "seen", "curved", "compared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests the time that a busy machine takes to start an Airflow, and to show each of their pages."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a running Airflow with a sandbox cluster, and the DAGs of tests/browser/dags."""
    folder = tmp_path_factory.mktemp("site")
    with running_site(folder, [Path(__file__).parent / "dags"], database=make_database(folder)) as site:
        for dag_id in EARLY:
            site.early[dag_id] = site.start(dag_id)
            if dag_id == "holds":  # on the first GPU, of which it is known how busy it is
                site.until_job("holds", site.early["holds"], "gpu", "RUNNING")
        yield site


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """Return a headless Chromium; a machine without one fails the test, and never skips it."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    if CHROMIUM is None:
        pytest.fail("these tests need Chromium: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def contexts() -> dict[Any, Any]:
    """Browsers of the persons of all tests, which find there what they have loaded before."""
    return {}


@pytest.fixture
def viewer(chromium: Browser, site: Site, contexts: dict[Any, Any]) -> Iterator[Callable[..., Viewer]]:
    """
    Return a function that brings a person with a browser; it takes what :func:`.new_context` takes.

    The test fails if any page that they opened had errors in its console or failed requests of ours.
    """
    viewers: list[Viewer] = []

    def bring(**how: Any) -> Viewer:
        kind = tuple(sorted(how.items()))
        if kind not in contexts:
            contexts[kind] = new_context(chromium, site, **how)
        viewers.append(Viewer(contexts[kind], site))
        return viewers[-1]

    yield bring
    for page in [page for one in viewers for page in one.pages]:
        page.close()
    assert [fault for one in viewers for fault in one.faults] == []
