"""A real Prometheus scrapes the API server of a whole Airflow."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.servers.prometheus import MONITORING, Prometheus, promtool
from tests.whole_airflow.conftest import METRICS_TOKEN, Lab

# One Airflow for all of these tests, so they belong into one process.
pytestmark = [pytest.mark.xdist_group("whole-airflow"), pytest.mark.timeout(1200)]


def test_prometheus_learns_of_all_clusters(lab: Lab, tmp_path: Path) -> None:
    assert lab.end("resubmitted", lab.early["resubmitted"]) == "success"
    with Prometheus(tmp_path, lab.airflow.url.removeprefix("http://"), METRICS_TOKEN) as prometheus:
        good = 'gpu_cluster_jobs_total{cluster="gpu_cluster_default", dag="resubmitted", reason="success"}'
        lab.until("a job that has ended well", lambda: prometheus.value(good) == 1)
        bad = 'gpu_cluster_jobs_total{cluster="gpu_cluster_default", dag="resubmitted", reason!="success"}'
        assert prometheus.value(f"sum({bad})") == 2
        assert prometheus.value("sum(gpu_cluster_up)") == 2
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
        for expression in expressions_of_dashboard():
            assert prometheus.get("query", query=expression)["resultType"] in ("vector", "scalar")


def test_what_prometheus_gets_is_well_formed_and_only_for_who_has_the_token(lab: Lab) -> None:
    url = f"{lab.airflow.url}/gpu-cluster/metrics"
    wrong, right = (
        urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}) for token in ("wrong", METRICS_TOKEN)
    )
    # Without any, this Airflow takes everybody for its administrator.
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(wrong)
    with refusal.value:
        assert refusal.value.code == 401
    with urllib.request.urlopen(right) as response:
        text = response.read().decode()
    assert 'gpu_cluster_gpus{cluster="gpu_cluster_default",state="free",type="virtual"}' in text
    assert promtool("check", "metrics", stdin=text) == ""
    # A person who is logged in sees them, too.
    assert "gpu_cluster_up" in lab.airflow.page("/gpu-cluster/metrics")


def expressions_of_dashboard() -> list[str]:
    dashboard = json.loads((MONITORING / "gpu-cluster.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [text.replace("$__range", "1h").replace("$window", "1h").replace("$cluster", ".*") for text in found]
