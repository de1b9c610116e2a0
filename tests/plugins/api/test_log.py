"""The log of a job over REST: windows, a search, and a download in pieces, all without secrets."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.log import mask_secret
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError
from airflow_provider_gpu_cluster.gpu_run.jobs import log_search
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins import log_download
from airflow_provider_gpu_cluster.plugins.api import log
from tests.gpu_run.jobs.test_log_window import SECRET, Job
from tests.plugins.api.collected_run import job_address
from tests.plugins.api.verbs_here import VerbsHere

HANDLE = JobHandle("job", "gpu_cluster_default", "/jobs/job", "host", "2026-01-02T03:04:05+00:00", 1)


class Verbs(VerbsHere):
    """The same, with a cluster that now and then cannot be reached, or other things happen."""

    before: list[Callable[[], None]]

    async def __call__(self, conn_id: str, verb: str, request: Mapping[str, Any], **more: Any) -> Any:
        if self.before:
            self.before.pop(0)()
        return await super().__call__(conn_id, verb, request, **more)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    job = Job(tmp_path / "root", secrets=(SECRET,))
    job.attempt(1)
    return job


@pytest.fixture
def verbs(job: Job, monkeypatch: pytest.MonkeyPatch) -> Verbs:
    verbs = Verbs(job.root)
    verbs.before = []
    # On a cluster it is a process that searches; here it is not the main thread, which alone can limit the time.
    monkeypatch.setattr(log_search, "_limited", nullcontext)
    monkeypatch.setattr(log, "ask", verbs)
    monkeypatch.setattr(log_download, "ask", verbs)
    return verbs


@pytest.fixture
def address(browser: TestClient, verbs: Verbs) -> str:
    return f"{job_address(HANDLE)}/log"


def test_a_window_is_the_end_by_default(browser: TestClient, address: str, job: Job) -> None:
    job.write(b"first\n\xff<script>\n" + f"key={SECRET}\nthe end\n".encode())
    found = browser.get(address).json()
    assert found["lines"] == ["first", "\\xff<script>", "key=***", "the end"]
    assert (found["offset"], found["end"], found["at_end"], found["grows"]) == (0, sum(found["bytes"]), True, False)
    place = found["bytes"][0]
    assert browser.get(address, params={"place": place, "way": "after", "most_lines": 1}).json()["lines"] == [
        "\\xff<script>"
    ]
    assert browser.get(address, params={"stream": "errors"}).json()["lines"] == []
    for wrong in ({"most_bytes": 1 << 20}, {"way": "up"}, {"place": -1}, {"stream": "../x"}, {"attempt": 0}):
        assert browser.get(address, params=wrong).status_code == 422


def test_what_airflow_knows_to_be_secret_is_hidden_as_well(browser: TestClient, address: str, job: Job) -> None:
    mask_secret("conn-passw0rd")
    mask_secret("of two\nlines")
    job.write(b"a conn-passw0rd b\nof two\nlines\nof two\n\xff\n")
    assert browser.get(address).json()["lines"] == ["a *** b", "of two", "lines", "of two", "\\xff"]
    assert browser.get(f"{address}/download").content == b"a *** b\n***\nof two\n\xff\n"
    assert browser.get(f"{address}/search", params={"q": "b"}).json()["hits"] == [
        {"line": 0, "offset": 16, "text": "a *** b"}
    ]


def test_a_search_goes_on_until_it_has_found_enough(
    browser: TestClient, address: str, job: Job, verbs: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write(b"".join(b"step %d of %d %s\n" % (step, 1000, SECRET.encode()) for step in range(20_000)))
    found = browser.get(f"{address}/search", params={"q": "STEP 9999 ", "ignore_case": True, "limit": 1}).json()
    assert [hit["text"] for hit in found["hits"]] == ["step 9999 of 1000 ***"]
    more = browser.get(f"{address}/search", params={"q": r"^step \d+7 ", "is_regex": True, "limit": 2}).json()
    assert [hit["text"] for hit in more["hits"]] == ["step 17 of 1000 ***", "step 27 of 1000 ***"]
    back = browser.get(f"{address}/search", params={"q": "step", "way": "before", "limit": 1}).json()
    assert [hit["text"] for hit in back["hits"]] == ["step 19999 of 1000 ***"]
    assert back["next"] == back["hits"][0]["line"]
    assert browser.get(f"{address}/search", params={"q": SECRET[:5]}).json()["hits"] == []
    # It says what it has found so far, before anybody could think that nothing happens.
    monkeypatch.setattr(log, "SEARCH_S", 0.0)
    verbs.asked.clear()
    slow = browser.get(f"{address}/search", params={"q": "nowhere"}).json()
    assert (slow["hits"], verbs.asked) == ([], ["search-log"])


def test_a_download_is_the_log_without_its_secrets(browser: TestClient, address: str, job: Job) -> None:
    data = os.urandom(1 << 20).replace(b"\n", b"") + b"\n" + f"key={SECRET}\n".encode() * 40_000 + b"\xff no end"
    job.write(data)
    with browser.stream("GET", f"{address}/download") as response:
        assert response.headers["content-disposition"] == 'attachment; filename="job.log"'
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert "sandbox" in response.headers["content-security-policy"]
        pieces = list(response.iter_raw())
    assert b"".join(pieces) == data.replace(SECRET.encode(), b"***")
    assert max(map(len, pieces)) < 1 << 20
    one = browser.get(f"{address}/download", params={"attempt": 1, "stream": "errors"})
    assert one.headers["content-disposition"] == 'attachment; filename="job.attempt-1.errors.log"'
    assert one.content == b""


def test_a_download_goes_on_after_a_fault_that_passes(
    browser: TestClient, address: str, job: Job, verbs: Verbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise GpuClusterConnectionError("cut")

    monkeypatch.setattr(log_download, "_PAUSES_S", (0.0, 0.0))
    data = b"0123456789abcde\n" * (1 << 17)
    job.write(data)
    verbs.before = [lambda: None, fails, fails, lambda: None, fails]
    assert browser.get(f"{address}/download").content == data
    # While it is taken, the job may print on: the copy ends where the log ended. What is cut is no copy.
    verbs.before = [lambda: None, lambda: job.write(data + b"more")]
    assert browser.get(f"{address}/download").content == data
    verbs.before = [lambda: None, lambda: job.write(b"short")]
    # The browser sees that the download has failed: it breaks off.
    with pytest.raises(RuntimeError, match="response already started"):
        browser.get(f"{address}/download")


def test_a_log_that_is_none_is_told(browser: TestClient, address: str, job: Job) -> None:
    os.mkfifo(job.logs / "training.log")
    assert "is a pipe" in browser.get(address).json()["problem"]
    refused = browser.get(f"{address}/download")
    assert refused.status_code == 409
    assert "is a pipe" in refused.json()["detail"]


@pytest.mark.parametrize("part", ["", "/search?q=x", "/download"])
def test_only_who_may_read_logs_sees_any(browser: TestClient, address: str, part: str) -> None:
    assert browser.get(address.replace("mine", "other") + part).status_code == 403
    browser.cookies.clear()
    assert browser.get(address + part).status_code == 401
