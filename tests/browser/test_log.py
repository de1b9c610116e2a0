"""The log of a running job in a browser: its end live, its start, a search, a link to a line, and a copy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.browser.accessibility import findings, overflow
from tests.browser.site import Site
from tests.browser.viewer import NARROW, Viewer, settled, switch

SECRET = "wandb-0123456789"


def test_a_log_is_read_while_the_job_prints(site: Site, viewer: Callable[..., Viewer]) -> None:
    run_id = site.start("printed")
    site.until_job("printed", run_id, "train", "RUNNING")
    person = viewer()
    page = settled(person.open_job("printed", run_id, "train", query="?show=log"))
    log = page.get_by_role("log")
    follow = page.get_by_role("button", name="Follow")
    log.get_by_text("later 5", exact=True).wait_for()
    assert follow.get_attribute("aria-pressed") == "true"
    last = "[...document.querySelectorAll('[role=log] .line')].at(-1)"
    page.wait_for_function(f"{last}.getBoundingClientRect().bottom <= innerHeight + 2000")

    # A reader who scrolls up is left alone, and told what comes.
    log.hover()
    page.mouse.wheel(0, -3000)
    more = page.get_by_role("button", name=re.compile("new lines?"))
    more.wait_for()
    assert follow.get_attribute("aria-pressed") == "false"
    place = log.evaluate("log => log.scrollTop")
    page.wait_for_timeout(500)
    assert log.evaluate("log => log.scrollTop") == place
    more.click()
    page.wait_for_function(
        "(log => log.scrollHeight - log.scrollTop - log.clientHeight < 40)(document.querySelector('[role=log]'))"
    )

    log.focus()
    page.keyboard.press("Home")
    log.get_by_text("step 1 of many", exact=True).wait_for()
    lines = log.locator(".line .text")
    assert lines.nth(0).inner_text() == "ERROR yellow inverse"
    assert lines.nth(1).inner_text() == r"a<U+202E>b <script>alert(1)</script>  ***"
    assert lines.nth(2).inner_text() == "3/3 ###"
    for theme in ("light", "dark"):
        switch(page, theme)
        assert findings(page) == "", theme

    page.keyboard.press("/")
    page.keyboard.type("MANY")
    page.keyboard.press("Enter")
    found = page.get_by_role("search").get_by_role("status")
    page.wait_for_function("document.querySelector('.line.chosen')?.innerText.includes('step 1 of many')")
    page.keyboard.press("Shift+Enter")
    page.wait_for_function("document.querySelector('.line.chosen')?.innerText.includes('step 20000 of many')")
    page.get_by_role("searchbox", name="Search the log").fill("step 19999 ")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.line.chosen')?.innerText.includes('step 19999 of many')")
    page.get_by_text("1 of 1", exact=True).wait_for()
    page.get_by_role("searchbox", name="Search the log").fill(SECRET[:9])
    page.get_by_text("no line", exact=True).wait_for()
    assert found.inner_text() == "no line"

    page.get_by_role("button", name="Link").click()
    page.set_viewport_size({"width": NARROW, "height": 800})
    assert overflow(page) <= 0
    assert findings(page) == "", "narrow"
    linked = settled(person.open(page.url.removeprefix(site.url)))
    linked.wait_for_function("document.querySelector('.line.chosen')?.innerText.includes('step 19999 of many')")

    with linked.expect_download() as download:
        linked.get_by_role("link", name="Download").click()
    copy = Path(download.value.path()).read_text()
    assert re.fullmatch(r"[\w.-]+\.log", download.value.suggested_filename)
    assert "step 20000 of many\nlater 1\n" in copy
    assert SECRET not in copy
    assert SECRET not in page.content()
