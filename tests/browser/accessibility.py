"""What axe finds on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from playwright.sync_api import Page

SERIOUS = ("serious", "critical")
OURS = "[data-gpu-cluster]"
# Those of axe's rules that ask what colours something has; all others find the same in light and dark.
COLOR_RULES = ("color-contrast", "link-in-text-block")


def findings(page: Page, within: str = OURS) -> str:
    """
    Return what axe finds on our part of a page that keeps people out, as a text that is empty if all is well.

    :param within: selector of that part; Airflow's own frame is not ours to judge.
    """
    return _run(page, within, {"resultTypes": ["violations"]})


def bad_colors(page: Page, within: str = OURS) -> str:
    """Return the same of colours alone, for a page of which all was found in another theme."""
    return _run(page, within, {"resultTypes": ["violations"], "runOnly": {"type": "rule", "values": COLOR_RULES}})


def _run(page: Page, within: str, options: dict[str, Any]) -> str:
    page.wait_for_selector(within)
    results: Any = Axe().run(page, context=within, options=options)
    found = [violation for violation in results.response["violations"] if violation["impact"] in SERIOUS]
    return "\n".join(_told(violation) for violation in found)


def _told(violation: dict[str, Any]) -> str:
    places = [
        f"  {' '.join(map(str, node['target']))}\n    {node['html'][:300]}\n    {node['failureSummary']}"
        for node in violation["nodes"][:5]
    ]
    return "\n".join([f"{violation['id']} ({violation['impact']}): {violation['help']}", *places])


def overflow(page: Page) -> int:
    """Return by how many pixels a page is wider than its window, so that it scrolls sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
