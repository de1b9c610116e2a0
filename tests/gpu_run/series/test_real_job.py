"""The history of a job that has really run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.series import reading
from tests.gpu_run.host import Host

TRAIN = """
for step in 1 2 3; do
  echo "{\\"step\\": $step, \\"loss\\": 0.$step}" >> "$PROGRESS_FILE"
  sleep 0.1
done
[ "$ATTEMPT" = 2 ] || exit 7
"""


def test_both_attempts_of_a_job_that_goes_on(host: Host) -> None:
    status = host.run(TRAIN, recover={"user_error": 1})
    job_id = status["job_id"]
    reply: Any = reading.answer(host.root, {"job_id": job_id, "what": "progress"}).value
    (loss,) = reply["curves"]
    assert loss["x"] == [1, 2, 3, 1, 2, 3]
    first, second = reply["sections"]
    assert (first["at"], second["at"]) == (0, loss["at"][3])
    assert (first["reason"], second["resumed_from"]) == ("user_error", "user_error")
    # Its lines do not say when they were written; the samples of its use do.
    assert reply["times"] == "samples"
    moments = [datetime.fromisoformat(one[name]).timestamp() for one in (first, second) for name in TIMES]
    assert all(moments[0] - 1 <= t <= moments[1] + 1 for t in loss["t"][:3])
    assert all(moments[2] - 1 <= t <= moments[3] + 1 for t in loss["t"][3:])
    usage: Any = reading.answer(host.root, {"job_id": job_id, "what": "usage"}).value
    names = {curve["name"] for curve in usage["curves"]}
    assert {"host/memory_bytes", "host/cpus"} <= names


TIMES = ("started_at", "ended_at")
