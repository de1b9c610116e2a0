"""Opens pages in Chromium as a person sees them, and keeps what goes wrong on them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

    from tests.browser.site import Site

Theme = Literal["light", "dark"]
WIDE, NARROW = 1300, 390
PATIENCE_MS = 300_000  # a busy machine takes long for what is there at once otherwise
_OURS = re.compile(r"/gpu-cluster/")
_BUSY = "[data-gpu-cluster] :is(.chakra-spinner, .chakra-skeleton, [aria-busy=true])"
# Requests that a page itself gives up, such as when another page is opened.
_GIVEN_UP = "net::ERR_ABORTED"
_NOT_LOADED = "Failed to load resource"


@dataclass
class Viewer:
    """
    A person at a browser.

    :param may_fail: patterns of addresses whose failed requests are no fault, such as of a server that is down.
    :param faults: what has gone wrong so far, for people: errors in the console, exceptions, failed requests of ours.
    """

    context: BrowserContext
    site: Site
    may_fail: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    pages: list[Page] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Open an address of Airflow's, such as ``/dags/...``, in a new tab of the browser."""
        page = self.context.new_page()
        self.pages.append(page)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("requestfailed", self._see_failure)
        page.on("response", self._see_answer)
        page.goto(f"{self.site.url}{path}")
        return page

    def open_job(self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, query: str = "") -> Page:
        """Open the tab of a task instance that shows its job."""
        mapped = "" if map_index < 0 else f"/mapped/{map_index}"
        return self.open(f"/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}/plugin/gpu-job{query}")

    def open_run(self, dag_id: str, run_id: str) -> Page:
        """Open the tab of a DAG run that shows its jobs."""
        return self.open(f"/dags/{dag_id}/runs/{run_id}/plugin/gpu-run-jobs")

    def open_jobs(self, query: str = "") -> Page:
        """Open the page of the navigation, with a query such as ``?view=clusters``."""
        return self.open(f"/plugin/gpu-jobs{query}")

    def _is_expected(self, address: str) -> bool:
        return any(re.search(pattern, address) for pattern in self.may_fail)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type != "error":
            return
        address = message.location.get("url", "")
        if self._is_expected(message.text) or self._is_expected(address):
            return
        if message.text.startswith(_NOT_LOADED) and not _OURS.search(address):
            return
        self.faults.append(f"console: {message.text} ({address})")

    def _see_failure(self, request: Request) -> None:
        reason = str(request.failure)
        if _OURS.search(request.url) and reason != _GIVEN_UP and not self._is_expected(request.url):
            self.faults.append(f"request: {request.method} {request.url}: {reason}")

    def _see_answer(self, response: Response) -> None:
        if _OURS.search(response.url) and response.status >= 400 and not self._is_expected(response.url):
            self.faults.append(f"answer: {response.request.method} {response.url}: {response.status}")


def settled(page: Page) -> Page:
    """Wait until our part of a page shows what it has asked for, and return the page."""
    page.locator("[data-gpu-cluster]").wait_for()
    page.wait_for_function(f"document.querySelectorAll('{_BUSY}').length === 0")
    return page


def switch(page: Page, theme: Theme) -> None:
    """Change between light and dark, as Airflow's own button does in another tab of the browser."""
    change = f"new StorageEvent('storage', {{ key: 'theme', newValue: '{theme}', storageArea: localStorage }})"
    page.evaluate(f"localStorage.setItem('theme', '{theme}'); window.dispatchEvent({change})")
    page.wait_for_function(f"document.documentElement.classList.contains('{theme}')")


def new_context(
    browser: Browser,
    site: Site,
    *,
    theme: Theme = "light",
    width: int = WIDE,
    height: int = 1000,
    role: str | None = "ADMIN",
    timezone: str = "UTC",
) -> BrowserContext:
    """
    Return a browser of its own for a person.

    :param role: one of Airflow's simple auth manager: ``ADMIN``, ``OP``, ``USER``, ``VIEWER``; None has no rights.
    :param timezone: the one that is chosen in Airflow.
    """
    token = site.airflow.token(role)
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,
        reduced_motion="reduce",
        # Where everybody is an admin, a token that comes along is still the one that counts.
        extra_http_headers={"Authorization": f"Bearer {token}"},
    )
    context.add_cookies([{"name": "_token", "value": token, "url": site.url}])
    context.add_init_script(
        f"""const chosen = {json.dumps({"theme": theme, "timezone": json.dumps(timezone)})};
        for (const name in chosen) if (localStorage.getItem(name) === null) localStorage.setItem(name, chosen[name]);"""
    )
    context.set_default_timeout(PATIENCE_MS)
    return context
