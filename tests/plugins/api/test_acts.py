"""What a user does to a job, on a real cluster; and that nobody else can make a browser do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.plugins.api.same_site import why_foreign
from tests.harness import jobs
from tests.harness.api_server import HANDLE, Rights, launched, token

SAME = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}


def test_a_job_saves_a_checkpoint_and_is_cancelled_and_its_trail_says_by_whom(
    browser: TestClient, cluster: Cluster, gpu_cluster_conn: dict[str, Any], eventually: Callable[..., Any]
) -> None:
    script = "#!/bin/bash\ntrap 'echo saved' USR1; echo ready; while :; do sleep 0.1; done\n"
    launch: Any = {"sources": [], "env": {}, "request_key": "1", "generation": "0", "record": {}}
    handle = cluster.submit("acted-on", spec=JobSpec(command="-"), run_script=script, **launch).handle
    address = launched(handle.to_json())
    eventually(lambda: "ready" in cluster.statuses([handle.job_id], tail_bytes=1000)[0].log_tail)

    said = [browser.post(address("/checkpoint"), json={"id": "mine-1"}, headers=SAME) for _ in range(2)]
    assert [response.status_code for response in said] == [200, 200]
    assert said[0].json() == said[1].json()
    assert cluster.statuses([handle.job_id])[0].state is JobState.RUNNING

    first, second = [browser.post(address("/cancel"), json={}, headers=SAME) for _ in range(2)]
    assert (first.status_code, first.json()["job_id"]) == (200, handle.job_id)
    assert second.status_code in (200, 409)
    assert jobs.wait(cluster, handle.job_id).state is JobState.CANCELLED
    again = browser.post(address("/cancel"), json={}, headers=SAME)
    sentence = f"Job {handle.job_id} has ended already, as CANCELLED."
    assert (again.status_code, again.json()) == (409, {"detail": sentence, "looks_again": False})
    ended = browser.post(address("/checkpoint"), json={}, headers=SAME)
    assert ended.status_code == 409
    assert "does not run" in ended.json()["detail"]

    acts = [act for act in cluster.audit(handle.job_id)["acts"] if act["act"] in ("interrupt", "cancel")]
    assert [(act["act"], act["by"]) for act in acts] == [("interrupt", "ada"), ("cancel", "ada")]
    assert "page of the job" in acts[0]["through"]


def test_a_cluster_out_of_reach_is_told(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAB", '{"conn_type": "gpu_cluster", "host": "127.0.0.1", "port": 1}')
    response = browser.post(launched(HANDLE.to_json())("/cancel"), json={}, headers=SAME)
    assert (response.status_code, response.json()["looks_again"]) == (503, True)


FOREIGN = [
    {"Content-Type": "application/json"},
    {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"},
    {"Content-Type": "application/json", "Sec-Fetch-Site": "same-site", "Origin": "http://testserver"},
    {"Content-Type": "application/json", "Sec-Fetch-Site": "none"},
    {"Content-Type": "application/json", "Origin": "http://evil.example"},
    {"Content-Type": "application/json", "Origin": "null"},
    {"Content-Type": "application/json", "Origin": "http://testserver.evil.example"},
    {"Content-Type": "application/json", "Authorization": "Basic abc"},
]


@pytest.mark.parametrize("what", ["/cancel", "/checkpoint"])
def test_other_sites_cannot_act_in_the_name_of_a_user(browser: TestClient, what: str) -> None:
    address = launched(None, state="running")(what)
    for headers in FOREIGN[:-1]:
        response = browser.post(address, content="{}", headers=headers)
        assert response.status_code == 403, headers
        assert "This request is not carried out" in response.json()["detail"]
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = browser.post(address, content="{}", headers={**SAME, "Content-Type": content_type})
        assert response.status_code == 415
    # All the way to the job, of which there is none.
    for headers in (SAME, {"Content-Type": "application/json", "Origin": "http://testserver"}):
        assert browser.post(address, content="{}", headers=headers).status_code == 404
    assert browser.get(address).status_code == 405


def test_where_a_request_comes_from(server: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for headers in FOREIGN:
        assert why_foreign({name.lower(): value for name, value in headers.items()})
    assert why_foreign({"authorization": "Bearer x", "origin": "http://evil.example"}) is None
    assert why_foreign({"origin": "https://airflow.example", "host": "airflow.example"}) is None
    # Airflow adds a token by itself where nobody needs to log in.
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    assert why_foreign({"authorization": "Bearer x", "origin": "http://evil.example"})
    assert why_foreign({"authorization": "Bearer x", "sec-fetch-site": "cross-site"})
    assert why_foreign({"authorization": "Bearer x"}) is None


def test_a_script_with_a_token_needs_to_say_nothing(server: TestClient) -> None:
    address = launched(None, state="running")("/cancel")
    headers = {"Authorization": f"Bearer {token()}"}
    assert server.post(address, json={}, headers=headers).status_code == 404


def test_who_may_only_look_cannot_act(browser: TestClient, rights: Rights) -> None:
    rights.remove(("PUT", DagAccessEntity.TASK_INSTANCE))
    for what in ("/cancel", "/checkpoint"):
        assert browser.post(launched(HANDLE.to_json())(what), json={}, headers=SAME).status_code == 403


@pytest.mark.parametrize("arguments", [{"id": "a b"}, {"id": "x" * 101}, {"kind": "preempted"}, [1]])
def test_what_is_no_argument_is_refused(browser: TestClient, arguments: Any) -> None:
    response = browser.post(launched(HANDLE.to_json())("/checkpoint"), json=arguments, headers=SAME)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("The request is not as it should be")
