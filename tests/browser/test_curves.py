"""The curves of a job and the line of its life are looked at, with a keyboard alone."""

from __future__ import annotations

from collections.abc import Callable

from tests.browser.accessibility import bad_colors, findings, overflow
from tests.browser.site import Site
from tests.browser.viewer import NARROW, Viewer, settled, switch


def test_curves_are_read_with_the_keyboard(site: Site, viewer: Callable[..., Viewer]) -> None:
    run_id = site.early["curved"]
    site.until_job("curved", run_id, "train")
    page = settled(viewer().open_job("curved", run_id, "train"))

    life = page.get_by_role("list", name="Parts of the job's life")
    life.get_by_text("attempt 1: user error").wait_for()
    assert life.get_by_role("listitem").count() == 4

    charts = page.locator("[aria-roledescription=chart]")
    loss = page.get_by_role("application", name="train/loss over step: train/loss 0.39")
    loss.wait_for()
    assert charts.count() >= 2
    # 60 steps: 1 to 40 of the first attempt, 21 to 60 of the second.
    loss.focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.get_by_role("status").get_by_text("step 13: train/loss 0.86", exact=True).wait_for()
    page.keyboard.press("Shift+ArrowRight")
    page.get_by_role("status").get_by_text("step 23: train/loss 0.76, train/loss 0.76", exact=True).wait_for()
    # The other charts show the same place.
    assert page.locator("figure", has_text="rate").locator("figcaption").inner_text().endswith("step 23")
    page.keyboard.press("+")
    reset = page.get_by_role("button", name="Reset zoom")
    assert reset.is_enabled()
    page.keyboard.press("0")
    assert reset.is_disabled()

    page.get_by_label("X axis").select_option("epoch")
    page.get_by_role("application", name="train/loss over epoch").wait_for()
    page.get_by_label("X axis").select_option(label="time")
    page.get_by_role("application", name="train/loss over time").wait_for()
    for label in ("Log scale", "In one chart"):
        page.get_by_label(label).press("Space")
    page.get_by_role("application", name="2 metrics over time").wait_for()
    assert findings(page) == ""
    switch(page, "dark")
    assert bad_colors(page) == "", "dark"
    switch(page, "light")

    page.get_by_label("As a table").press("Space")
    numbers = page.get_by_role("table", name="Metrics in numbers").get_by_role("row")
    assert numbers.nth(1).inner_text().split("\t") == ["train/loss", "0.39", "0.39", "0.98", "80"]
    assert findings(page) == "", "table"
    page.set_viewport_size({"width": NARROW, "height": 800})
    assert overflow(page) <= 0
