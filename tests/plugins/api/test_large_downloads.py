"""A gigabyte passes through the API server in bounded memory, and who leaves early gives the connection back."""

from __future__ import annotations

import hashlib
import http.client
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import uvicorn
from fastapi.testclient import TestClient

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.files.checksums import sha256_of
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.plugins import output_download
from tests.harness import jobs
from tests.harness.api_server import token
from tests.plugins.api.collected_run import job_address

pytestmark = pytest.mark.long
SIZE = 1 << 30


@pytest.fixture
def port(browser: TestClient) -> Iterator[int]:
    """Serve the application by real HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(browser.app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()
    listener.close()


def test_a_gigabyte(
    port: int,
    cluster: Cluster,
    gpu_cluster_conn: dict[str, Any],
    eventually: Callable[..., Any],
    record_property: Callable[[str, object], None],
) -> None:
    command = f"head -c {SIZE} /dev/urandom > $OUTPUT_DIR/model"
    job_id = jobs.submit(cluster, command).handle.job_id
    jobs.wait(cluster, job_id)
    with open(Path(cluster.settings.root_dir, job_id, "outputs", "model"), "rb") as file:
        sha256, _ = sha256_of(file)
    address = job_address(JobHandle(job_id, "gpu_cluster_default", "/x", "host", None, 1))
    path = f"{quote(address)}/outputs/file?path=model"
    headers = {"Authorization": f"Bearer {token()}"}

    def ask() -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return connection, response

    for _ in range(output_download.MOST_AT_ONCE + 1):
        connection, response = ask()
        response.read(1 << 20)
        connection.close()
        eventually(lambda: output_download._lines._used == 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    connection, response = ask()
    digest, size = hashlib.sha256(), 0
    while piece := response.read(1 << 20):
        digest.update(piece)
        size += len(piece)
    seconds = time.monotonic() - began
    connection.close()
    more_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    record_property("MB/s", round(SIZE / seconds / 1e6))
    print(f"{SIZE / seconds / 1e6:.0f} MB/s, {more_mib:.0f} MiB more memory")
    assert (size, digest.hexdigest()) == (SIZE, sha256)
    assert more_mib < 100
