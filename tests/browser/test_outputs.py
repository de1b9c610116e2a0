"""A sweep is compared, and what its elements have written is looked at, in a browser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from tests.browser.accessibility import bad_colors, findings, overflow
from tests.browser.site import Site
from tests.browser.viewer import NARROW, Viewer, settled, switch


def test_a_sweep_is_compared_and_its_outputs_are_looked_at(site: Site, viewer: Callable[..., Viewer]) -> None:
    run_id = site.early["compared"]
    site.until_job("compared", run_id, "train")
    page = settled(viewer().open_job("compared", run_id, "train", query="?show=elements"))

    squares = page.get_by_role("list", name="Elements, those that have failed first").get_by_role("link")
    squares.nth(11).wait_for()
    names = [squares.nth(place).get_attribute("aria-label") for place in range(3)]
    assert names == ["Element 8: Failed, user error", "Element 11: Failed, user error", "Element 0: Succeeded"]
    rows = page.locator("tr[data-element]")
    rows.nth(11).wait_for()
    assert rows.first.get_attribute("data-element") == "8"
    page.get_by_role("columnheader", name="loss").get_by_role("button").click()
    page.locator("th[aria-sort=ascending]", has_text="loss").wait_for()
    best = rows.first
    assert re.sub(r"\s+", " ", best.inner_text()).startswith("3 Succeeded 0.01 1 0.01 best 0.99")
    assert page.locator("[data-end=worst]").count() == 1
    assert page.locator("svg[role=img][aria-label*='rate, depth, loss'] path").count() == 12
    assert findings(page) == ""
    switch(page, "dark")
    assert bad_colors(page) == "", "dark"
    switch(page, "light")
    page.get_by_role("button", name="Failed 2").click()
    assert rows.count() == 2
    page.get_by_role("button", name="All 12").click()
    squares.first.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("element=10"))

    page.get_by_role("tab", name="Outputs").click()
    page.get_by_role("button", name="plots/curve.png", exact=True).click()
    dialog = page.get_by_role("dialog")
    image = dialog.get_by_role("img", name="The image plots/curve.png")
    image.wait_for()
    page.wait_for_function("document.querySelector('.chakra-dialog__content img').naturalWidth === 64")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="history.csv").click()
    dialog.get_by_role("columnheader", name="epoch").wait_for()
    assert dialog.get_by_role("row").nth(1).inner_text().split("\t")[2] == 'a, "b"'
    assert findings(page, ".chakra-dialog__content") == ""
    page.keyboard.press("Escape")
    page.get_by_role("button", name=r"<b>\u202egnp.exe").click()
    assert dialog.get_by_role("region", name="Text").inner_text() == "<script>alert(1)</script>"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Compute the SHA-256 of model.bin").click()
    sha256 = page.locator("tr", has_text="model.bin").locator("[data-sha256]").get_attribute("data-sha256")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: model.bin").click()
    assert hashlib.sha256(Path(download.value.path()).read_bytes()).hexdigest() == sha256
    assert download.value.suggested_filename == "model.bin"
    assert findings(page) == ""
    page.set_viewport_size({"width": NARROW, "height": 800})
    assert overflow(page) <= 0
