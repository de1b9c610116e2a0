"""Metrics, as the backends of Airflow send them: over real sockets, in each of their forms."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk.observability.metrics import stats_utils
from airflow.sdk.observability.stats import Stats

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.stats import metrics, sending
from airflow_provider_gpu_cluster.stats.jobs import count_all, count_launch
from airflow_provider_gpu_cluster.stats.metrics import METRICS, Metric
from airflow_provider_gpu_cluster.stats.sending import MOST_TAG_CHARACTERS, count, gauge, tag_value, time
from tests.conftest import REPOSITORY
from tests.servers.statsd import StatsdServer

Use = Callable[..., None]
STATS = sys.modules[Stats.initialize.__module__]
FORMS = {
    "plain": {"statsd_on": "True"},
    "influx": {"statsd_on": "True", "statsd_influxdb_enabled": "True"},
    "datadog": {"statsd_datadog_enabled": "True"},
}
ENDED: Any = {
    "event": "ended",
    "job_id": "job-1",
    "attempt": 1,
    "dag_id": "nightly",
    "task_id": "train.submit",
    "state": "FAILED",
    "reason": "out_of_memory",
    "seconds": {"queued": 60.0, "staging": 2.0, "running": 1.5},
    "gpu_seconds": 3.25,
}


@pytest.fixture
def statsd() -> Iterator[StatsdServer]:
    with StatsdServer() as server:
        yield server


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, statsd: StatsdServer) -> Iterator[Use]:
    """Return a function that configures a backend, as at the start of a process of Airflow."""

    def configure(form: str, **more: str) -> None:
        options = {"statsd_host": "127.0.0.1", "statsd_port": str(statsd.port), **FORMS[form], **more}
        for name, value in options.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name.upper()}", value)
        Stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)

    yield configure
    backend: Any = vars(STATS)["_backend"]
    for client in ("statsd", "dogstatsd"):
        if hasattr(backend, client):
            close = getattr(getattr(backend, client), "close", None) or getattr(backend, client).stop
            close()
    monkeypatch.undo()
    Stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        (
            "plain",
            [
                "airflow.gpu_cluster.jobs_ended:1|c",
                "airflow.gpu_cluster.jobs_failed:1|c",
                "airflow.gpu_cluster.staging_duration:2000.000000|ms",
                "airflow.gpu_cluster.job_duration:1500.000000|ms",
                "airflow.gpu_cluster.gpu_seconds:3.25|c",
            ],
        ),
        (
            "influx",
            [
                "airflow.gpu_cluster.jobs_ended,conn_id=gpu,dag_id=nightly,task_id=train.submit,reason=out_of_memory:1|c",
                "airflow.gpu_cluster.jobs_failed,conn_id=gpu,dag_id=nightly,task_id=train.submit:1|c",
            ],
        ),
        (
            "datadog",
            [
                "airflow.gpu_cluster.jobs_ended:1|c|#conn_id:gpu,dag_id:nightly,task_id:train.submit,reason:out_of_memory",
                "airflow.gpu_cluster.job_duration:1500.0|ms|#conn_id:gpu,dag_id:nightly,task_id:train.submit,"
                "reason:out_of_memory",
            ],
        ),
    ],
)
def test_an_end_is_sent_in_the_form_of_each_backend(
    use: Use, statsd: StatsdServer, eventually: Any, form: str, lines: list[str]
) -> None:
    use(form)
    count_all("gpu", [ENDED])
    eventually(lambda: all(line in statsd.lines for line in lines))


def test_every_event_is_sent(use: Use, statsd: StatsdServer, eventually: Any) -> None:
    use("plain")
    record = {"dag_id": "nightly", "task_id": "train"}
    count_launch("gpu", record, launched=5)
    count_launch("gpu", None, launched=0)
    started: Any = {"event": "started", "job_id": "job-1", "attempt": 2, "seconds": {"queued": 0.5}}
    recovered: Any = {"event": "recovered", "job_id": "job-1", "attempt": 2, "reason": "preempted", "gpu_seconds": 9}
    unknown: Any = {"event": "of a later version", "job_id": "job-1", "attempt": 1}
    ends: list[Any] = [{**ENDED, "state": state} for state in protocol.FINAL_STATES]
    count_all("gpu", [started, recovered, unknown, *ends])
    gauge(metrics.WATCHED_JOBS, {"conn_id": "gpu"}, 7)
    count(metrics.RECONNECTS, {"conn_id": "gpu"}, 0)
    for line in (
        "jobs_submitted:5|c",
        "jobs_joined:1|c",
        "jobs_started:1|c",
        "queue_duration:500.000000|ms",
        "jobs_recovered:1|c",
        "gpu_seconds:9|c",
        "jobs_succeeded:1|c",
        "jobs_cancelled:1|c",
        "jobs_lost:1|c",
        "watched_jobs:7|g",
    ):
        eventually(lambda line=line: f"airflow.gpu_cluster.{line}" in statsd.lines)
    assert statsd.of("gpu_cluster.reconnects") == []


@pytest.mark.parametrize("form", ["influx", "datadog"])
@pytest.mark.parametrize(
    "dag_id",
    ["ночной", "a b,c=d|e:f#g", "x" * 250, "", "日" * 250],
    ids=["letters", "signs", "long", "empty", "long letters"],
)
def test_odd_names_of_dags_lose_no_metric(
    use: Use, statsd: StatsdServer, eventually: Any, form: str, dag_id: str
) -> None:
    use(form)
    for metric in METRICS:
        count(metric, dict.fromkeys(metric.tags, dag_id))
    eventually(lambda: len(statsd.of("gpu_cluster")) == len(METRICS))


def test_names_that_differ_stay_different_and_good_ones_stay_as_they_are() -> None:
    assert tag_value("nightly.train-2_b") == "nightly.train-2_b"
    odd = [tag_value(name) for name in ("ночь", "день", "x" * 250, "x" * 249, "a b", "a_b", "a\udc80b")]
    assert len(set(odd)) == len(odd)
    assert all(len(value) <= MOST_TAG_CHARACTERS for value in odd)


def test_lists_of_a_deployment_are_kept_to(use: Use, statsd: StatsdServer, eventually: Any) -> None:
    use("plain", metrics_allow_list="gpu_cluster.jobs_ended,ti")
    count(metrics.JOBS_STARTED, {})
    count(metrics.JOBS_ENDED, {})
    eventually(lambda: statsd.lines == ["airflow.gpu_cluster.jobs_ended:1|c"])


def test_disabled_tags_are_left_out(use: Use, statsd: StatsdServer, eventually: Any) -> None:
    use("influx", statsd_disabled_tags="dag_id,task_id")
    count(metrics.JOBS_STARTED, {"conn_id": "gpu", "dag_id": "nightly"})
    eventually(lambda: statsd.lines == ["airflow.gpu_cluster.jobs_started,conn_id=gpu:1|c"])


def test_a_process_that_airflow_has_not_configured_is_configured(
    use: Use, statsd: StatsdServer, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("plain")
    monkeypatch.setattr(STATS, "_factory", None)
    monkeypatch.setattr(STATS, "_backend", None)
    monkeypatch.setattr(sending, "_is_ready", False)
    count(metrics.JOBS_STARTED, {})
    eventually(lambda: statsd.lines == ["airflow.gpu_cluster.jobs_started:1|c"])


@pytest.mark.parametrize(
    "options",
    [
        {"statsd_host": "no-such-host.invalid"},
        {"statsd_port": "1"},
        {"statsd_custom_client_path": "no.such.Client"},
        {"stat_name_handler": "builtins.len"},
    ],
)
def test_a_backend_that_does_not_work_is_no_fault_of_a_task(use: Use, options: dict[str, str]) -> None:
    use("plain", **options)
    for _ in range(3):
        count_all("gpu", [ENDED])
        time(metrics.JOB_DURATION, {"conn_id": object()}, float("nan"))
    count_all("gpu", None)


def test_opentelemetry_gets_them_with_their_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own logger for OpenTelemetry, with a reader in memory in the place of the exporter."""
    from airflow.sdk._shared.observability.metrics.otel_logger import SafeOtelLogger
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    logger: Any = SafeOtelLogger(MeterProvider(metric_readers=[reader]))
    Stats.initialize(factory=lambda: logger, export_legacy_names=True)
    try:
        count_all("gpu", [ENDED])
        gauge(metrics.WATCH_LAG, {"conn_id": "gpu"}, 0.5)
    finally:
        Stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
    data: Any = reader.get_metrics_data()
    found = {one.name: one.data.data_points[0] for one in data.resource_metrics[0].scope_metrics[0].metrics}
    ended = found["airflow.gpu_cluster.jobs_ended"]
    assert (ended.value, dict(ended.attributes)["reason"]) == (1, "out_of_memory")
    assert found["airflow.gpu_cluster.job_duration"].sum == 1500
    assert found["airflow.gpu_cluster.gpu_seconds"].value == 3.25
    assert found["airflow.gpu_cluster.watch_lag"].value == 0.5


def _row(metric: Metric) -> str:
    tags = ", ".join(f"`{tag}`" for tag in metric.tags)
    words = metric.words.replace("``", "`")
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {tags} | {words} | {metric.sent_by} |"


def test_the_docs_list_what_the_code_sends() -> None:
    page = (REPOSITORY / "docs/metrics.md").read_text(encoding="utf-8")
    listed = [line for line in page.splitlines() if line.startswith("| `gpu_cluster.")]
    assert listed == [_row(metric) for metric in METRICS]
    assert len({metric.name for metric in METRICS}) == len(METRICS)
