"""Every page opens, in light and dark, wide and narrow, and nothing on it keeps people out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.accessibility import bad_colors, findings, overflow
from tests.browser.site import Site
from tests.browser.viewer import NARROW, Viewer, settled, switch


@pytest.fixture(scope="package")
def seen(site: Site) -> str:
    """A run with a job that has succeeded and one that has failed."""
    run_id = site.early["seen"]
    site.until_job("seen", run_id, "train")
    site.until_job("seen", run_id, "fails")
    return run_id


PAGES = {
    "jobs": "/plugin/gpu-jobs",
    "clusters": "/plugin/gpu-jobs?view=clusters",
    "run": "/dags/seen/runs/{run_id}/plugin/gpu-run-jobs",
    "job": "/dags/seen/runs/{run_id}/tasks/train/plugin/gpu-job",
    # Where there is no room for Airflow's grid beside it.
    "job alone": "/plugin/gpu-jobs?view=job&dag_id=seen&run_id={run_id}&task_id=train",
    "failed job": "/dags/seen/runs/{run_id}/tasks/fails/plugin/gpu-job",
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_and_keeps_nobody_out(name: str, seen: str, viewer: Callable[..., Viewer]) -> None:
    page = settled(viewer().open(PAGES[name].format(run_id=seen)))
    assert findings(page) == ""
    switch(page, "dark")
    assert bad_colors(page) == "", "dark"
    switch(page, "light")
    page.set_viewport_size({"width": NARROW, "height": 800})
    assert findings(page) == "", "narrow"
    assert overflow(page) <= 0
