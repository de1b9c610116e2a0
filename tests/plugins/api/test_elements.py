"""The elements of an array over REST: parameters and metrics of each, those that have ended badly first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from airflow_provider_gpu_cluster.gpu_run.store import arrays, records
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins.api import elements
from tests.plugins.api.collected_run import job_address
from tests.plugins.api.verbs_here import VerbsHere

HANDLE = JobHandle("sweep", "gpu_cluster_default", "/jobs/sweep", "host", "2026-01-02T03:04:05+00:00", 1, 3)
SECRET = "s3cret-of-ada"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A root with an array of three elements, of which the second has failed."""
    root = Root(str(tmp_path / "root"))
    root.job("sweep").create()
    arrays.keep_elements(root.job("sweep"), [f"sweep_{index}" for index in range(3)])
    for index, state in enumerate(("SUCCEEDED", "FAILED", "SUCCEEDED")):
        job = root.job(f"sweep_{index}")
        job.create()
        spec = {"script_args": ["--lr", f"1e-{index}", "--key", SECRET, f"depth={index}"]}
        request: Any = {"spec": spec, "by": {}, "requested_at": "2026", "masks": masks_of([SECRET])}
        attempt = job.add_attempt(1, cast(Any, request), {})
        assert attempt is not None
        records.write_json(attempt.at("exit.json"), {"state": state, "reason": None, "message": SECRET})
        Path(job.at("outputs", "metrics.json")).write_text(json.dumps({"loss": index / 2, "worst": float("nan")}))
        Path(job.at("logs", "progress.jsonl")).write_text('{"loss": NaN, "half\\ud800": Infinity}\n')
    monkeypatch.setattr(elements, "ask", VerbsHere(root))
    return root


def test_what_each_was_given_and_what_came_of_it(browser: TestClient, root: Root) -> None:
    response = browser.get(f"{job_address(HANDLE)}/elements")
    assert SECRET not in response.text
    found = response.json()
    assert [one["index"] for one in found["elements"]] == [1, 0, 2]
    assert (found["size"], found["next"], found["counts"]) == (3, None, {"SUCCEEDED": 2, "FAILED": 1})
    failed = found["elements"][0]
    assert failed["parameters"] == {"lr": 0.1, "key": "***", "depth": 1}
    assert failed["metrics"] == {"loss": 0.5, "worst": "NaN"}
    assert failed["progress"] == {"loss": "NaN", "half\ufffd": "Infinity"}
    assert (failed["state"], failed["message"], failed["attempt"]) == ("FAILED", "***", 1)


def test_some_of_them(browser: TestClient, root: Root) -> None:
    job = job_address(HANDLE)
    page = browser.get(f"{job}/elements", params={"limit": 1, "offset": 1, "failed_first": False}).json()
    assert ([one["index"] for one in page["elements"]], page["next"]) == ([1], 2)
    page = browser.get(f"{job}/elements", params={"index": [2, 0]}).json()
    assert [one["index"] for one in page["elements"]] == [2, 0]


def test_no_array_and_one_that_is_gone(browser: TestClient, root: Root) -> None:
    job = job_address(HANDLE)
    assert browser.get(f"{job}/elements", params={"element": 1}).status_code == 404
    arrays.keep_elements(root.job("sweep"), [])
    response = browser.get(f"{job}/elements")
    assert response.status_code == 404
    assert "there is no array sweep under" in response.json()["detail"]
