"""Making things look as if nobody had touched them for long."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tests.gpu_run.host import Host

DAY = 86400.0


def make_old(path: str | os.PathLike[str], seconds: float = 100 * DAY) -> None:
    """Give a file or folder, and all in it, times of modification in the past."""
    then = time.time() - seconds
    for where, folders, files in os.walk(path):
        for name in folders + files:
            os.utime(os.path.join(where, name), (then, then), follow_symlinks=False)
    os.utime(path, (then, then), follow_symlinks=False)


def make_job_old(host: Host, job_id: str, seconds: float = 100 * DAY) -> None:
    """Have everything of a job say that it happened in the past, its records as well."""
    job = host.job(job_id)
    then = datetime.fromtimestamp(time.time() - seconds, timezone.utc).isoformat(timespec="milliseconds")
    for attempt in job.attempts():
        for name in ("request.json", "claim.json", "exit.json"):
            path = Path(attempt.at(name))
            if path.exists():
                record: dict[str, Any] = json.loads(path.read_text())
                # A claim says when a process was started, in another unit.
                record.update({key: then for key in record if key.endswith("_at") or key == "at"})
                path.write_text(json.dumps(record))
    make_old(job.path, seconds)
