"""The list of all jobs: what it shows, and that an address, a keyboard and an ear are enough for it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import findings
from tests.browser.site import Site
from tests.browser.stored_jobs import store_jobs, stored_job
from tests.browser.viewer import Viewer, settled

STORED = 120
LIST = re.compile(r"/gpu-cluster/api/jobs\?")


@pytest.fixture(scope="package")
def stored(site: Site) -> None:
    """Many jobs of the past, of a cluster that is not there any more."""
    store_jobs(site, [stored_job(number) for number in range(STORED)])
    earlier = {"is_latest": False, "message": "<b>boom</b> \u202egnp.exe", "task_id": "<script>alert(1)</script>"}
    store_jobs(site, [stored_job(STORED, **earlier)])


def rows(page: Page) -> list[str]:
    return list(page.locator("tr[data-job]").evaluate_all("rows => rows.map(row => row.dataset.job)"))


@pytest.mark.usefixtures("stored")
def test_a_person_finds_jobs_and_shares_the_view(site: Site, viewer: Callable[..., Viewer]) -> None:
    person = viewer()
    page = settled(person.open_jobs("?conn_id=far"))
    expect(page).to_have_title("GPU jobs - Airflow")
    page.get_by_role("heading", name=f"{STORED + 1} GPU jobs").wait_for()
    expect(page.get_by_role("status").filter(has_text="50 of 121 jobs")).to_be_attached()
    assert rows(page)[0] == f"seen-stored-{STORED:06}"
    # What a job or a DAG is called is text, and nothing else.
    page.get_by_role("link", name="<script>alert(1)</script>").wait_for()
    earlier = page.locator(f"tr[data-job=seen-stored-{STORED:06}]")
    assert earlier.get_by_text("earlier", exact=True).count() == 1
    assert f"?job_id=seen-stored-{STORED:06}" in str(earlier.get_by_role("link").first.get_attribute("href"))

    # By keyboard alone: choose a state, sort, and go on to the next page.
    page.get_by_role("combobox", name="State").focus()
    page.keyboard.press("Enter")
    page.get_by_role("option", name="Failed").wait_for()
    assert findings(page) == "", "with an open filter"
    page.keyboard.type("Failed")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile("state=FAILED"))
    page.get_by_role("heading", name="30 GPU jobs").wait_for()
    page.get_by_role("button", name="GPU-hours").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("order_by=-gpu_seconds"))
    expect(page.get_by_role("columnheader", name="GPU-hours")).to_have_attribute("aria-sort", "descending")
    expect(page.get_by_role("columnheader", name="Submitted")).to_have_attribute("aria-sort", "none")

    # Who gets the address sees the same.
    shared = page.url
    seen = rows(page)
    page.close()
    page = settled(person.open(shared.removeprefix(site.url)))
    assert rows(page) == seen
    page.get_by_role("searchbox", name="Search jobs").fill("no such job")
    page.get_by_text("No job matches.").wait_for()
    page.get_by_role("button", name="Clear filters").first.click()
    page.wait_for_url(re.compile(r"gpu-jobs\?order_by=-gpu_seconds$"))
    page.get_by_role("button", name="Next page").click()
    page.wait_for_url(re.compile("page=2"))
    page.go_back()
    page.wait_for_url(re.compile(r"gpu-jobs\?order_by=-gpu_seconds$"))


@pytest.mark.usefixtures("stored")
def test_a_list_that_cannot_be_had_says_why_and_keeps_what_it_had(viewer: Callable[..., Viewer]) -> None:
    """A server that is down, and an auth manager with rights for each DAG, are played by the browser."""
    person = viewer()
    person.may_fail.append("/gpu-cluster/api/jobs")
    page = person.open("/dags")
    refusal = {"detail": "You may not read GPU jobs.", "looks_again": False}
    page.route(LIST, lambda route: route.fulfill(status=403, json=refusal))
    page.get_by_role("link", name="GPU jobs").click()
    page.get_by_role("alert").filter(has_text="You may not read GPU jobs.").wait_for()
    page.unroute(LIST)
    page.get_by_role("link", name="GPU clusters").click()
    page.get_by_role("link", name="GPU jobs").last.click()
    page.locator("tr[data-job]").first.wait_for()
    page.route(LIST, lambda route: route.abort())
    page.get_by_role("button", name="Job", exact=True).click()
    page.get_by_role("alert").filter(has_text="Airflow does not answer.").wait_for()
    assert rows(page)
    page.unroute(LIST)
    page.get_by_text("Airflow does not answer.").wait_for(state="detached")
