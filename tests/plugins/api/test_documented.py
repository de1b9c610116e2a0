"""The commands of docs/rest-api.md, as they stand there, with a real login over real HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from airflow.api_fastapi.app import init_auth_manager, purge_cached_app
from fastapi import FastAPI

from airflow_provider_gpu_cluster.plugins.api import acts
from airflow_provider_gpu_cluster.plugins.gpu_cluster import GpuClusterPlugin
from tests.harness.api_server import DAG, HANDLE, launched
from tests.harness.patience import PATIENCE_S
from tests.plugins.api.conftest import Answers

PAGE = Path(__file__).resolve().parents[3] / "docs" / "rest-api.md"


@pytest.fixture
def airflow(database: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: Answers) -> Iterator[str]:
    """The address of the plugin's part of the API server, where ada can log in."""
    passwords = tmp_path / "passwords.json"
    passwords.write_text(json.dumps({"ada": "hunter2"}))
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "ada:op")
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(passwords))
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "not a secret, and long enough for HS512 " * 2)
    purge_cached_app()
    app = FastAPI()
    for plugin in GpuClusterPlugin.fastapi_apps:
        app.mount(plugin["url_prefix"], plugin["app"])
    init_auth_manager(app)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + PATIENCE_S
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        purge_cached_app()


def test_the_commands_do_what_they_say(airflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Any] = []

    def cancel(*given: Any) -> str:
        # A real one is cancelled in test_acts.py.
        cancelled.append(given)
        return "CANCELLED"

    monkeypatch.setattr(acts, "_cancel", cancel)
    found = re.search("dagRuns/([^/]+)/taskInstances/([^/]+)/", launched(HANDLE.to_json())("/x"))
    assert found is not None
    names = {"AIRFLOW": airflow, "NAME": "ada", "PASSWORD": "hunter2", "DAG": DAG}
    environ = {**os.environ, **names, "RUN": found.group(1), "TASK": found.group(2)}
    blocks = re.findall("```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    # Those about the log and the curves need a job that has printed something, and one of them ends with the job.
    told = [block for block in blocks if not re.search('/(log|curves|events)[?/"]', block)]
    script = "set -euo pipefail\n" + "\n".join(told)
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    job, _, said = done.stdout.rpartition("}\n")
    assert '"headline": "Epoch <b>3</b>"' in job
    assert said == "The job is cancelled.\n"
    assert cancelled == [(HANDLE, "ada")]
