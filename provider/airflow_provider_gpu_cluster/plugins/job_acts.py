"""Who has done what with a job, for its page: asked for seldom, as an open page looks at its job all the time."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_gpu_cluster.exceptions import GpuClusterError

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.cluster import Cluster
    from airflow_provider_gpu_cluster.gpu_run.protocol.ledger import ActLine
    from airflow_provider_gpu_cluster.jobs.status import JobStatus

log = logging.getLogger(__name__)

MOST_SHOWN = 200
_KEEP_S = 30.0
_MOST_JOBS = 256


class _Known(NamedTuple):
    acts: list[ActLine]
    state: tuple[object, ...]
    asked_at: float


_known: dict[tuple[str, str], _Known] = {}
_lock = threading.Lock()


def acts_of(cluster: Cluster, status: JobStatus) -> list[ActLine]:
    """Return the last acts on a job, as they are or were a moment ago; none if they cannot be told now."""
    key = cluster.settings.conn_id, status.job_id
    state = (status.state, status.attempt)
    known = _known.get(key)
    if known is not None and known.state == state and time.monotonic() < known.asked_at + _KEEP_S:
        return known.acts
    try:
        acts = cluster.audit(status.job_id)["acts"][-MOST_SHOWN:]
    except GpuClusterError as error:
        log.debug("the acts on job %s cannot be told: %s", status.job_id, error)
        return []
    with _lock:
        _known.pop(key, None)
        while len(_known) >= _MOST_JOBS:
            del _known[next(iter(_known))]
        _known[key] = _Known(acts, state, time.monotonic())
    return acts
