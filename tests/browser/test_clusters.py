"""The page of the clusters: where a GPU is free, who has the others, and what a person may do there."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.accessibility import bad_colors, findings, overflow
from tests.browser.site import Site
from tests.browser.viewer import NARROW, Viewer, settled, switch

# The heading counts on all clusters what the cells show of one; other jobs come and go meanwhile.
HEADING_SAYS_WHAT_CELLS_SAY = """() => {
  const free = document.querySelectorAll("[data-gpu-cluster] li[data-state=free]").length;
  const headings = [...document.querySelectorAll("[data-gpu-cluster] :is(h1, h2, h3)")];
  return headings.some((heading) => heading.innerText.includes(`${free} of 4 GPUs free on 1 cluster`));
}"""


def test_a_person_finds_a_free_gpu_and_who_has_the_others(site: Site, viewer: Callable[..., Viewer]) -> None:
    run_id = site.early["holds"]
    site.until_job("holds", run_id, "gpu", "RUNNING")
    page = settled(viewer().open_jobs("?view=clusters"))
    card = page.get_by_role("region", name="gpu_cluster_default")
    cell = card.get_by_role("listitem", name="leased, by holds.gpu of")
    cell.first.wait_for()
    assert "60 % busy" in str(cell.first.get_attribute("aria-label"))
    page.wait_for_function(HEADING_SAYS_WHAT_CELLS_SAY)
    card.get_by_role("button", name="Test now").click()
    card.get_by_text("git", exact=True).wait_for()
    card.get_by_role("button", name="Test now").wait_for()
    assert findings(page) == ""
    switch(page, "dark")
    assert bad_colors(page) == "", "dark"
    page.set_viewport_size({"width": NARROW, "height": 800})
    assert overflow(page) <= 0
    cell.first.get_by_role("link", name="holds.gpu").click()
    page.wait_for_url(f"**/dags/holds/runs/{run_id}/tasks/gpu/plugin/gpu-job")
    # A viewer of DAGs may not read connections: no host, no test, and the own jobs all the same.
    page = settled(viewer(role="VIEWER").open_jobs("?view=clusters"))
    page.get_by_role("listitem", name="leased, by holds.gpu of").first.wait_for()
    assert page.get_by_role("button", name="Test now").count() == 0
    assert page.get_by_text("Disk").count() == 0
