"""A person has a job save a checkpoint, and cancels it, with a keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.site import Site
from tests.browser.viewer import Viewer, settled

pytestmark = pytest.mark.long

PATIENCE_MS = 120_000


def test_what_a_person_does_to_a_job_is_asked_twice_and_noted(
    site: Site, viewer: Callable[..., Viewer], tmp_path: Path
) -> None:
    run_id = site.start("watched", {"until": str(tmp_path / "end")})
    site.until_job("watched", run_id, "train", "RUNNING")
    page = settled(viewer(role="OP").open_job("watched", run_id, "train"))
    dialog = page.get_by_role("alertdialog")
    for label, confirm in (("Save a checkpoint", "Send the signal"), ("Cancel", "Cancel it")):
        page.get_by_role("button", name=label, exact=True).focus()
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("button", name="Leave it")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name=label, exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("button", name=confirm)).to_be_enabled()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        dialog.wait_for(state="detached", timeout=PATIENCE_MS)
    page.locator("[data-state=CANCELLED]").first.wait_for(timeout=PATIENCE_MS)
    expect(page.get_by_role("group", name="What you can do")).to_be_focused()
    acts = [(act["act"], act["by"]) for act in site.job("watched", run_id, "train", wait_s=20)["acts"]]
    assert {("interrupt", "op"), ("cancel", "op")} <= set(acts)
