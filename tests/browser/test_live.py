"""A job that somebody watches from the queue to its end, without ever loading a page again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page

from tests.browser.site import Site
from tests.browser.viewer import Viewer, settled


def test_a_job_is_watched_from_the_queue_to_its_end(site: Site, viewer: Callable[..., Viewer], tmp_path: Path) -> None:
    # However many GPUs other tests have: the first job leaves too few for the second.
    first = site.start("watched", {"until": str(tmp_path / "first"), "gpus": 2})
    site.until_job("watched", first, "train", "RUNNING")
    second = site.start("watched", {"until": str(tmp_path / "second"), "gpus": 3})
    job_id = site.until_job("watched", second, "train", "QUEUED")["job_id"]
    person = viewer()
    tab = settled(person.open_job("watched", second, "train"))
    of_run = settled(person.open_run("watched", second))
    of_run.locator(f"tr[data-job='{job_id}']").wait_for()
    for page in (tab, of_run):
        page.evaluate("window.isStillHere = true")
    try:
        for state, gate in (("QUEUED", "first"), ("RUNNING", "second"), ("SUCCEEDED", "")):
            until(tab, f"[data-gpu-cluster] [data-state={state}]")
            until(of_run, f"tr[data-job='{job_id}'] [data-state={state}]")
            if gate:
                (tmp_path / gate).touch()
    finally:
        # Whatever happens, their GPUs are for the jobs of other tests.
        for gate in ("first", "second"):
            (tmp_path / gate).touch()
    for page in (tab, of_run):
        assert page.evaluate("window.isStillHere")


def until(page: Page, selector: str) -> None:
    page.locator(selector).first.wait_for()
