"""The metrics that this package sends to Airflow's Stats; docs/metrics.md lists them."""

from __future__ import annotations

from dataclasses import dataclass

COUNTER = "counter"
TIMER = "timer"
GAUGE = "gauge"

_OF_JOBS = ("conn_id", "dag_id", "task_id")


@dataclass(frozen=True)
class Metric:
    """
    One metric.

    :param name: without Airflow's own prefix (``[metrics] statsd_prefix``).
    :param kind: ``counter``, ``timer`` or ``gauge``.
    :param unit: of its values.
    :param tags: the names of its tags.
    :param words: what it counts or measures.
    :param sent_by: the processes that send it.
    """

    name: str
    kind: str
    unit: str
    tags: tuple[str, ...]
    words: str
    sent_by: str


_LAUNCHERS = "worker, triggerer"
_LOOKERS = "whoever looks at the job first: worker, triggerer, API server"
_WORKER = "worker"
_CONNECTED = "worker, triggerer, API server"
_TRIGGERER = "triggerer"
_WATCHERS = "worker, triggerer"

JOBS_SUBMITTED = Metric(
    "gpu_cluster.jobs_submitted",
    COUNTER,
    "jobs",
    _OF_JOBS,
    "jobs that were launched, each element of an array and each attempt of ``resubmit`` as well",
    _LAUNCHERS,
)
JOBS_JOINED = Metric(
    "gpu_cluster.jobs_joined",
    COUNTER,
    "jobs",
    _OF_JOBS,
    "launches that found their job already launched, by an earlier try or an earlier trigger",
    _LAUNCHERS,
)
JOBS_STARTED = Metric(
    "gpu_cluster.jobs_started",
    COUNTER,
    "attempts",
    _OF_JOBS,
    "attempts that got their GPUs and began",
    _LOOKERS,
)
JOBS_ENDED = Metric(
    "gpu_cluster.jobs_ended",
    COUNTER,
    "jobs",
    (*_OF_JOBS, "reason"),
    "jobs that ended; ``reason`` is ``success``, or why the job ended badly",
    _LOOKERS,
)
JOBS_SUCCEEDED = Metric(
    "gpu_cluster.jobs_succeeded", COUNTER, "jobs", _OF_JOBS, "those of them that succeeded", _LOOKERS
)
JOBS_FAILED = Metric("gpu_cluster.jobs_failed", COUNTER, "jobs", _OF_JOBS, "those that failed", _LOOKERS)
JOBS_CANCELLED = Metric("gpu_cluster.jobs_cancelled", COUNTER, "jobs", _OF_JOBS, "those that were cancelled", _LOOKERS)
JOBS_LOST = Metric("gpu_cluster.jobs_lost", COUNTER, "jobs", _OF_JOBS, "those that were lost", _LOOKERS)
JOBS_RECOVERED = Metric(
    "gpu_cluster.jobs_recovered",
    COUNTER,
    "attempts",
    (*_OF_JOBS, "reason"),
    "attempts that ended and were followed by another one by themselves; ``reason`` is why they ended",
    _LOOKERS,
)
GPU_SECONDS = Metric(
    "gpu_cluster.gpu_seconds",
    COUNTER,
    "GPU-seconds",
    _OF_JOBS,
    "GPUs of the attempts that ended, multiplied by the seconds they were leased",
    _LOOKERS,
)
QUEUE_DURATION = Metric(
    "gpu_cluster.queue_duration", TIMER, "ms", _OF_JOBS, "from the launch of a job to its GPUs", _LOOKERS
)
STAGING_DURATION = Metric(
    "gpu_cluster.staging_duration",
    TIMER,
    "ms",
    _OF_JOBS,
    "until the inputs of a job that ended were in place",
    _LOOKERS,
)
BUILD_DURATION = Metric(
    "gpu_cluster.build_duration", TIMER, "ms", _OF_JOBS, "until the environment of a job that ended was built", _LOOKERS
)
JOB_DURATION = Metric(
    "gpu_cluster.job_duration",
    TIMER,
    "ms",
    (*_OF_JOBS, "reason"),
    "from the start of a job's last attempt to its end",
    _LOOKERS,
)
UPLOAD_BYTES = Metric("gpu_cluster.upload_bytes", COUNTER, "bytes", ("conn_id",), "inputs that were sent", _WORKER)
UPLOAD_DURATION = Metric(
    "gpu_cluster.upload_duration", TIMER, "ms", ("conn_id",), "time in which inputs of one job were sent", _WORKER
)
DOWNLOAD_BYTES = Metric("gpu_cluster.download_bytes", COUNTER, "bytes", ("conn_id",), "outputs that came", _WORKER)
DOWNLOAD_DURATION = Metric(
    "gpu_cluster.download_duration", TIMER, "ms", ("conn_id",), "time in which outputs of one job came", _WORKER
)
CONNECTIONS_OPENED = Metric(
    "gpu_cluster.connections_opened",
    COUNTER,
    "connections",
    ("conn_id",),
    "SSH connections that were opened",
    _CONNECTED,
)
CONNECTION_FAILURES = Metric(
    "gpu_cluster.connection_failures",
    COUNTER,
    "tries",
    ("conn_id",),
    "tries to open one that failed",
    _CONNECTED,
)
RECONNECTS = Metric(
    "gpu_cluster.reconnects",
    COUNTER,
    "connections",
    ("conn_id",),
    "those of the opened connections that replaced a broken one",
    _CONNECTED,
)
WATCHED_JOBS = Metric(
    "gpu_cluster.watched_jobs", GAUGE, "jobs", ("conn_id", "host"), "jobs that a triggerer watches now", _TRIGGERER
)
WATCH_LAG = Metric(
    "gpu_cluster.watch_lag",
    GAUGE,
    "seconds",
    ("conn_id", "host"),
    "since when a triggerer that watches jobs has heard nothing from the cluster: up to 5 when all is well",
    _TRIGGERER,
)
MESSAGES_SENT = Metric(
    "gpu_cluster.messages_sent",
    COUNTER,
    "messages",
    ("conn_id", "event"),
    "messages of ``notify`` that were sent",
    _WATCHERS,
)
MESSAGES_FAILED = Metric(
    "gpu_cluster.messages_failed",
    COUNTER,
    "tries",
    ("conn_id", "event"),
    "tries to send one that failed",
    _WATCHERS,
)
GPUS = Metric(
    "gpu_cluster.gpus", GAUGE, "GPUs", ("conn_id",), "GPUs of the cluster, when ``hook.capacity()`` is called", _WORKER
)
FREE_GPUS = Metric("gpu_cluster.free_gpus", GAUGE, "GPUs", ("conn_id",), "those that are free", _WORKER)
BROKEN_GPUS = Metric("gpu_cluster.broken_gpus", GAUGE, "GPUs", ("conn_id",), "those that do not work", _WORKER)
WAITING_JOBS = Metric(
    "gpu_cluster.waiting_jobs", GAUGE, "jobs", ("conn_id",), "jobs of all users that wait there", _WORKER
)

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
