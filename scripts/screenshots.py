"""Take the pictures of the docs: every page, light, dark and narrow, of a real Airflow and a sandbox cluster."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import math
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.site import GPUS, Site, running_site
from tests.browser.viewer import NARROW, WIDE, Viewer, new_context, settled

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "docs" / "images" / "pages"
QUALITY = 72
MOST_BYTES = 2_000_000
LOOKS = {"light": ("light", WIDE), "dark": ("dark", WIDE), "narrow": ("light", NARROW)}
# Curves are drawn, and a live view has heard of something, a moment after a page has what it asked for.
PAUSE_MS = 2500
TRAINING_GPUS = 2


@dataclass(frozen=True)
class Picture:
    """
    A page.

    :param path: its address; ``{done}``, ``{long}`` and ``{waiting}`` are runs.
    :param view: the view of a job that it shows; a page that has no such view (yet) is left out.
    """

    name: str
    path: str
    view: str = ""
    height: int = 900


RUNNING = "/dags/vision_long/runs/{long}/tasks/finetune/plugin/gpu-job"
WARM_UP = "/dags/vision/runs/{done}/tasks/warm_up/plugin/gpu-job"
PICTURES = (
    Picture("clusters", "/plugin/gpu-jobs?view=clusters"),
    Picture("run", "/dags/vision/runs/{done}/plugin/gpu-run-jobs"),
    Picture("running", RUNNING, height=1300),
    Picture("waiting", "/dags/vision_waiting/runs/{waiting}/tasks/distill/plugin/gpu-job"),
    Picture("failed", "/dags/vision/runs/{done}/tasks/large_batch/plugin/gpu-job"),
    Picture("log", f"{WARM_UP}?show=log", view="log"),
    Picture("outputs", f"{WARM_UP}?show=outputs", view="outputs"),
    Picture("details", f"{WARM_UP}?show=details", view="details"),
    Picture("array", "/dags/vision/runs/{done}/tasks/sweep/plugin/gpu-job?show=elements", view="elements"),
    # Late, when the clusters have been asked for the pages before it.
    Picture("jobs", "/plugin/gpu-jobs"),
    Picture("connection", "/connections"),
)


def main() -> int:
    """Take the pictures; the exit code says whether they may go into the repository."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"some of {', '.join(picture.name for picture in PICTURES)}; all by default"
    )
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder for the pictures")
    arguments = parser.parse_args()
    chosen = [picture for picture in PICTURES if not arguments.names or picture.name in arguments.names]
    arguments.to.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="pictures-") as folder,
        running_site(Path(folder), [REPOSITORY / "tests/browser/dags"]) as site,
    ):
        say(f"Airflow is at {site.url}; its jobs run")
        with busy_gpus(site):
            runs = run_jobs(site)
            take(chosen, site, runs, arguments.to)
    size = sum(file.stat().st_size for file in arguments.to.glob("*.webp"))
    say(f"{len(list(arguments.to.glob('*.webp')))} pictures, {size / 1e6:.2f} MB, in {arguments.to}")
    return 0 if size < MOST_BYTES else 1


def run_jobs(site: Site) -> dict[str, str]:
    """Run the jobs that are to be seen; return the ids of the runs."""
    done = site.start("vision")
    site.until_run("vision", done)
    long = site.start("vision_long")
    site.until_job("vision_long", long, "finetune", "RUNNING")
    waiting = site.start("vision_waiting")
    site.until_job("vision_waiting", waiting, "distill", "QUEUED")
    return {"done": done, "long": long, "waiting": waiting}


@contextlib.contextmanager
def busy_gpus(site: Site) -> Iterator[None]:
    """Let the sandbox's GPUs seem to compute, more and less."""
    over = threading.Event()
    file = site.sandbox.folder / "gpus.json"

    def change() -> None:
        second = 0
        while not over.wait(1):
            second += 1
            gpus = [
                {
                    **GPUS[0],
                    "percent": max(0, min(100, 78 + 18 * math.sin(second / 4 + number) - 60 * (second % 20 == 0))),
                    "memory_bytes": GPUS[0]["memory_bytes"] * (2 + math.sin(second / 30 + number)),
                }
                if number < TRAINING_GPUS
                else GPUS[1]
                for number in range(site.sandbox.gpus)
            ]
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps({"gpus": gpus}))
            fresh.replace(file)

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def take(pictures: list[Picture], site: Site, runs: dict[str, str], folder: Path) -> None:
    """Take pictures of pages in all looks."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for look in LOOKS:
            viewer = viewer_of(browser, site, look)
            for picture in pictures:
                take_one(viewer, picture, runs, folder / f"{picture.name}-{look}.webp")
            for fault in viewer.faults:
                say(f"  {look}: {fault}")
        browser.close()


def viewer_of(browser: Browser, site: Site, look: str) -> Viewer:
    """Return a person who sees pages in one of :data:`LOOKS`."""
    theme, width = LOOKS[look]
    return Viewer(new_context(browser, site, theme="dark" if theme == "dark" else "light", width=width), site)


def take_one(viewer: Viewer, picture: Picture, runs: dict[str, str], file: Path) -> None:
    """Take a picture of a page, unless the page is not there."""
    path = picture.path.format(**runs)
    page = viewer.open(alone(path) if "narrow" in file.name else path)
    page.set_viewport_size(
        {"width": page.viewport_size["width"] if page.viewport_size else WIDE, "height": picture.height}
    )
    if picture.name == "connection":
        open_connection_form(page)
    else:
        settled(page)
    page.wait_for_timeout(PAUSE_MS)
    if picture.view and page.locator(f"[role=tab][aria-selected=true][data-value={picture.view}]").count() == 0:
        say(f"  {file.name}: there is no such view")
    else:
        shot = viewer.context.new_cdp_session(page).send(
            "Page.captureScreenshot", {"format": "webp", "quality": QUALITY}
        )
        file.write_bytes(base64.b64decode(shot["data"]))
        say(f"  {file.name}: {file.stat().st_size // 1000} kB")
    page.close()


def alone(path: str) -> str:
    """Return where a task's job is shown without the task: on a narrow page, Airflow's grid takes its place."""
    found = re.fullmatch(r"/dags/(.+)/runs/(.+)/tasks/(.+)/plugin/gpu-job(?:\?(.*))?", path)
    if found is None:
        return path
    dag, run, task, query = found.groups(default="")
    return f"/plugin/gpu-jobs?view=job&dag_id={dag}&run_id={run}&task_id={task}&{query}"


def open_connection_form(page: Page) -> None:
    """Open the form of a new connection of our type."""
    page.get_by_role("button", name="Add Connection").click()
    page.get_by_role("dialog").get_by_role("combobox").first.click()
    page.keyboard.type("gpu")
    page.keyboard.press("Enter")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
