"""What a scrape of /gpu-cluster/metrics takes with 20 clusters and 1,000 jobs, and which connections it opens."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.plugins import metrics_page
from airflow_provider_gpu_cluster.plugins.app import app
from airflow_provider_gpu_cluster.plugins.cluster_looks import ClusterLooks
from benchmarks.measure import CONN_ID, Bench, bench, line, timed
from benchmarks.usage import connections
from tests.harness.jobs import record, submit, wait
from tests.servers.proxy import CutProxy

CLUSTERS = 20
JOBS = 1000
RUNS = 10
TOKEN = "a-token-for-prometheus"


def main() -> None:
    clusters = int(sys.argv[1]) if sys.argv[1:] else CLUSTERS
    with bench(gpus=8) as cluster:
        proxy = CutProxy((cluster.sshd.host, cluster.sshd.port))
        conn_ids = _make_clusters(cluster, clusters, proxy)
        os.environ["AIRFLOW__GPU_CLUSTER__METRICS_TOKEN"] = TOKEN
        os.environ["AIRFLOW__GPU_CLUSTER__METRICS_CONN_IDS"] = ",".join(conn_ids)
        # In this benchmark, only scrapes that begin together share a look.
        metrics_page.looks = ClusterLooks(keep_s=0)
        with TestClient(app) as client:
            # A stock sshd turns some away when twenty log in at once; the next scrape tries them again.
            first = [timed(lambda: _scrape(client, 0))]
            while _told(text := _scrape(client, 0)) < clusters:
                pass
            opened = connections(cluster)
            print(f"{clusters} clusters, {JOBS} jobs, {len(text.splitlines())} lines, {len(text) / 1000:.0f} kB\n")
            line("first scrape: connects, and installs the program", first)
            line("scrape that looks at every cluster", [timed(lambda: _scrape(client, clusters)) for _ in range(RUNS)])
            print(f"SSH connections: {opened} after the first scrapes, {connections(cluster)} after {RUNS + 1} more")
            metrics_page.looks._keep_s = 3600
            line("scrape within 15 s of another", [timed(lambda: _scrape(client, clusters)) for _ in range(RUNS)])
            metrics_page.looks._keep_s = 0
            proxy.freeze_now()
            times = [timed(lambda: _scrape(client, clusters - 1)) for _ in range(RUNS)]
            line("scrape while one cluster is silent: first", times[:1])
            line("and further ones", times[1:])
            proxy.close()
        metrics_page.looks.close()


def _scrape(client: TestClient, clusters: int) -> str:
    """Scrape, and see that so many clusters at least have told their sums."""
    response = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200, response.text
    assert _told(response.text) >= clusters, response.text
    return str(response.text)


def _told(text: str) -> int:
    return text.count("gpu_cluster_job_duration_seconds_count{")


def _make_clusters(cluster: Bench, count: int, proxy: CutProxy) -> list[str]:
    """Make connections to so many roots behind one server; the last is behind a proxy. They share the jobs evenly."""
    environ = json.loads(cluster.connections()[f"AIRFLOW_CONN_{CONN_ID.upper()}"])
    with cluster.cluster() as session:
        handle = submit(session, "true", who=record(dag_id="nightly")).handle
        wait(session, handle.job_id, JobState.SUCCEEDED)
    original = Path(handle.job_dir)
    (month,) = (original.parent / ".gpu-run/ledger").glob("*.jsonl")
    lines = [text for text in month.read_text().splitlines(keepends=True) if text.startswith('{"kind": "end"')]
    conn_ids = []
    for number in range(count):
        root = cluster.folder / f"root-{number}"
        ledger = root / ".gpu-run/ledger"
        ledger.mkdir(parents=True, mode=0o700)
        own = [text.replace('"nightly"', f'"dag-{one % 10}"') for one in range(JOBS // count) for text in lines]
        (ledger / month.name).write_text("".join(own))
        for one in range(JOBS // count):
            shutil.copytree(original, root / f"job-{one}")
        conn_id = f"cluster_{number}"
        where = {"port": proxy.port} if number == count - 1 else {}
        extra = {**environ["extra"], "root_dir": str(root), "lease_dir": str(cluster.folder / f"leases-{number}")}
        os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps({**environ, **where, "extra": extra})
        conn_ids.append(conn_id)
    return conn_ids


if __name__ == "__main__":
    main()
