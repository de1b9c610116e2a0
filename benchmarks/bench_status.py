"""The status of one job and of a thousand, in one call."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.measure import bench, line, paired
from tests.harness.jobs import submit, wait

RUNS = 11
JOBS = 1000


def main() -> None:
    with bench(gpus=4) as cluster, cluster.cluster() as session:
        handle = submit(session, "echo done", job_id="ended").handle
        wait(session, "ended")
        ended = ["ended"] + [f"ended-{number}" for number in range(1, JOBS)]
        for job_id in ended[1:]:
            # The job's own records, a thousand times: a status reads nothing that is kept between calls.
            shutil.copytree(handle.job_dir, Path(handle.job_dir).parent / job_id)
        blocker = submit(session, "sleep 600", gpus=4).handle.job_id
        waiting = [submit(session, "true", job_id=f"waiting-{number}").handle.job_id for number in range(200)]
        one, thousand, queued, fresh = paired(
            RUNS,
            lambda: session.statuses(["ended"]),
            lambda: session.statuses(ended),
            lambda: session.statuses(waiting),
            lambda: _with_connection(cluster, ["ended"]),
        )
        line("status of 1 job, connection open", one)
        line("status of 1 job, connection included", fresh)
        line(f"status of {JOBS} jobs that have ended, in one call", thousand)
        line(f"status of {len(waiting)} waiting jobs, in one call", queued)
        session.cancel([blocker, *waiting], requested_by="bench")


def _with_connection(cluster: object, job_ids: list[str]) -> None:
    with cluster.cluster() as session:  # type: ignore[attr-defined]
        session.statuses(job_ids)


if __name__ == "__main__":
    main()
