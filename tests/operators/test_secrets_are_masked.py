"""What the task's log masks is masked everywhere: on a real cluster, with a job that prints what it was given."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk._shared.secrets_masker import secrets_masker

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuJobFailed
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.plugins.job_detail import Rights, job_detail
from airflow_provider_gpu_cluster.plugins.job_looks import JobLooks
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.watch.end import WatchEnd
from tests.harness import jobs
from tests.harness.patience import PATIENCE_S
from tests.harness.task_context import execute, task_context

pytestmark = pytest.mark.usefixtures("gpu_cluster_conn")

SECRET = "hf-0123456789-s3cret"
PRINTS_ALL = """
printf '{"token": "%s", "step": 1}\\n' "$HF_TOKEN" >>"$PROGRESS_FILE"
printf '{"config": {"token": "%s"}, "loss": 1}' "$HF_TOKEN" >"$OUTPUT_DIR/metrics.json"
for number in 1 2 3 4 5 6 7 8 9; do echo "line $number has $HF_TOKEN in it"; done
exit 3
"""


@pytest.fixture(autouse=True)
def masker(monkeypatch: pytest.MonkeyPatch) -> Any:
    masker = secrets_masker._secrets_masker()
    monkeypatch.setattr(masker, "patterns", set())
    monkeypatch.setattr(masker, "replacer", None)
    monkeypatch.setattr(masker, "sensitive_variables_fields", ["token", "password"])
    return masker


class Log(list[str]):
    def info(self, event: str, **fields: Any) -> None:
        self.append(f"{event} {fields}")

    warning = error = info


def test_secret_that_a_job_prints_is_shown_nowhere(
    cluster: Cluster, masker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = SubmitGpuJobOperator(task_id="train", command=PRINTS_ALL, env={"HF_TOKEN": SECRET})
    handle = execute(train, task_context())
    status = jobs.wait(cluster, handle["job_id"])
    # Others, such as the API server, have never heard of the secret.
    masker.patterns, masker.replacer = set(), None

    log = Log()
    monkeypatch.setattr(GpuJobSensor, "log", log)
    with pytest.raises(GpuJobFailed) as caught:
        execute(GpuJobSensor(task_id="done", job=handle, mode="poke"), task_context())
    collect = CollectGpuJobOperator(task_id="collect", job=handle, destination=str(tmp_path / "home"))
    known = asyncio.run(JobLooks().look(JobHandle.from_json(handle), wait_s=PATIENCE_S))
    page = job_detail(JobHandle.from_json(handle), known, Rights(read_log=True))
    assert page["env_names"] == ["HF_TOKEN"]
    shown = {
        "status": str(status) + json.dumps(status.to_json()),
        "error": str(caught.value) + caught.value.log_tail,
        "event": json.dumps(WatchEnd(JobHandle.from_json(handle), status).to_json()),
        "log": "".join(log),
        "metrics": json.dumps(execute(collect, task_context())),
        "page": json.dumps(page),
    }
    with_output = {where for where, text in shown.items() if "line 9 has *** in it" in text}
    assert with_output == {"status", "error", "event", "log", "page"}
    assert '"token": "***"' in shown["metrics"]
    assert not [where for where, text in shown.items() if SECRET[:8] in text or SECRET[-8:] in text]
    assert (tmp_path / "home" / "metrics.json").read_text().count(SECRET) == 1
    records = Path(handle["job_dir"], ".job").rglob("*")
    assert not [path for path in records if path.is_file() and SECRET.encode() in path.read_bytes()]
    # Wherever the text that is shown begins: no end of the secret sticks out.
    for tail_bytes in range(1, 60):
        tail = cluster.statuses([handle["job_id"]], tail_bytes=tail_bytes)[0].log_tail
        assert SECRET[-4:] not in tail
