"""GpuJobNotifier, against a real cluster, a real mail server and a real receiver of webhooks."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, BaseNotifier
from airflow.sdk.api.datamodels._generated import TaskInstanceState

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import JobHandle
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.notifications import callback
from airflow_provider_gpu_cluster.notifications.gpu_job import GpuJobNotifier, NotSentError
from airflow_provider_gpu_cluster.operators.gpu_job import CollectGpuJobOperator, SubmitGpuJobOperator
from airflow_provider_gpu_cluster.tasks.job_notes import StoredXCom
from tests.harness.jobs import submit, wait
from tests.harness.task_context import TaskInstance, task_context
from tests.servers.hooks import Hooks
from tests.servers.mail import MailServer, html_of


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    server = MailServer()
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", server.connection)
    yield server
    server.close()


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    server = Hooks()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/lab")


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Any]:
    """Stand for the XComs that Airflow's supervisor gives to a callback."""
    stored: dict[tuple[str, str], Any] = {}

    def get_one(*, key: str, task_id: str, **place: Any) -> Any:
        assert place == {"dag_id": "lab", "run_id": "manual__1", "map_index": -1}
        return stored.get((task_id, key))

    def get_all(*, key: str, task_id: str, **place: Any) -> Any:
        assert place == {"dag_id": "lab", "run_id": "manual__1"}
        value = stored.get((task_id, key))
        return None if value is None else [value]

    monkeypatch.setattr(StoredXCom, "get_one", get_one)
    monkeypatch.setattr(StoredXCom, "get_all", get_all)
    return stored


def context_of(state: str, error: BaseException | None = None, **arguments: Any) -> Any:
    """Return the context of a callback of the task ``train``, in the task's own process."""
    ti = TaskInstance(max_tries=1)
    ti.state = TaskInstanceState(state)
    task = SubmitGpuJobOperator(task_id="train", command="true", **{"wait_for_completion": True, **arguments})
    return {**task_context(ti), "task": task, "exception": error}


def test_a_failed_job_is_told_by_mail_and_by_webhook(
    cluster: Cluster,
    gpu_cluster_conn: dict[str, Any],
    mail: MailServer,
    hooks: Hooks,
    xcoms: dict[tuple[str, str], Any],
) -> None:
    launched = submit(cluster, "echo '<b>training</b>'; python3 -c 'import no_such_module'", gpus=1)
    other = submit(cluster)
    status = wait(cluster, launched.handle.job_id)
    xcoms["train", "return_value"] = json.dumps(launched.handle.to_json())
    notifier = GpuJobNotifier(via=SmtpNotifier(to="ml@example.org"), webhook_url=hooks.url, webhook_secret="s3cret-key")
    notifier(context_of("up_for_retry", status.error("lab")))

    (one,) = mail.mails
    assert one["To"] == "ml@example.org"
    assert one["Subject"] == "Failed: lab.train on gpu_cluster_default (missing module), will be tried again"
    html = html_of(one)
    assert "No module named &#39;no_such_module&#39;" in html
    assert "What to do:" in html
    assert 'href="https://airflow.example.org/lab/dags/lab/runs/manual__1/tasks/train/plugin/gpu-job"' in html
    assert 'href="https://airflow.example.org/lab/dags/lab/runs/manual__1/tasks/train"' in html

    ((_, headers, body, _),) = hooks.requests
    payload = json.loads(body)
    assert headers["webhook-id"] == payload["event_id"] == f"{launched.handle.job_id}/1/failed-retry"
    assert headers["webhook-signature"].startswith("v1,")
    assert payload["verdict"] == {"reason": "user_error", "kind": "missing_module"}
    assert payload["job"]["gpus"] == [0]
    assert payload["task"] == {
        "dag_id": "lab", "run_id": "manual__1", "task_id": "train", "try_number": 1, "tries": 2, "will_retry": True,
    }  # fmt: skip

    # A callback of the DAG tells of each job of the run.
    wait(cluster, other.handle.job_id)
    xcoms["other", "return_value"] = other.handle.to_json()
    with DAG("lab", schedule=None) as dag:
        for task_id in ("train", "never_launched", "other"):
            SubmitGpuJobOperator(task_id=task_id, command="true")
    of_run = {"dag": dag, "run_id": "manual__1", "reason": "task_failure"}
    GpuJobNotifier(webhook_url=hooks.url, only="failed")(of_run)
    # Airflow may call a callback twice, and the same receiver is told of an end once.
    for _ in range(2):
        GpuJobNotifier(webhook_url=hooks.url)(of_run)
    # Another one is told as well.
    GpuJobNotifier(webhook_url=hooks.url.replace("127.0.0.1", "localhost"))(of_run)
    told = [json.loads(body) for _, _, body, _ in hooks.requests[1:]]
    assert [(one["event"], one["task"]["task_id"]) for one in told] == [
        ("failed", "train"),
        ("completed", "other"),
        ("failed", "train"),
        ("completed", "other"),
    ]


def test_a_completed_job_is_told_with_its_metrics_and_a_running_one_is_not(
    cluster: Cluster,
    gpu_cluster_conn: dict[str, Any],
    hooks: Hooks,
    xcoms: dict[tuple[str, str], Any],
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    code = (
        f'while [ ! -e {go} ]; do sleep 0.05; done; echo \'{{"loss": 0.25, "best": NaN}}\' > $OUTPUT_DIR/metrics.json'
    )
    launched = submit(cluster, code)
    xcoms["train", "return_value"] = json.dumps(launched.handle.to_json())
    notifier = GpuJobNotifier(webhook_url=hooks.url)
    notifier(context_of("success", wait_for_completion=False))
    assert hooks.requests == []
    go.touch()
    wait(cluster, launched.handle.job_id)
    notifier(context_of("success"))
    ((_, _, body, _),) = hooks.requests
    payload = json.loads(body)
    assert (payload["event"], payload["metrics"]) == ("completed", {"loss": 0.25, "best": "NaN"})

    # The task that collects has the job as its argument, and fails for something else than its end.
    collect = CollectGpuJobOperator(task_id="collect", job=launched.handle.to_json(), destination="/full")
    context = context_of("failed", OSError("the disk is full"))
    context["ti"].task_id = "collect"
    notifier({**context, "task": collect})
    payload = json.loads(hooks.requests[-1][2])
    assert (payload["event"], payload["job"]["state"], payload["cause"]) == ("failed", "SUCCEEDED", "The disk is full.")
    assert payload["event_id"] == "lab/manual__1/collect/-1/1/failed"


def test_a_cluster_out_of_reach_is_said_and_what_is_known_is_told(
    cut_proxy: Any,
    gpu_cluster_conn: dict[str, Any],
    hooks: Hooks,
    xcoms: dict[tuple[str, str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_proxy.close()
    connection = {**gpu_cluster_conn, "port": cut_proxy.port}
    monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(callback, "_ASK_FOR_S", 0.2)
    xcoms["train", "return_value"] = JobHandle("job-1", "gpu_cluster_default", "/jobs/job-1", "host", None, 1).to_json()
    ended = JobStatus("job-1", JobState.FAILED, reason="user_error", message="it failed", attempt=2, log_tail="boom\n")
    notifier = GpuJobNotifier(webhook_url=hooks.url)
    notifier(context_of("failed", ended.error("lab")))
    notifier(context_of("failed", GpuClusterConnectionError("no answer for 10 min")))
    notifier(context_of("success"))
    by_error, by_task, by_success = (json.loads(body) for _, _, body, _ in hooks.requests)
    assert (by_error["event_id"], by_error["log_tail"]) == ("job-1/2/failed", ["boom"])
    assert by_error["cause"].startswith("It failed. Its cluster could not be asked just now: ")
    assert (by_task["event"], by_task["title"]) == ("system_error", "Cluster out of reach")
    assert by_success["event"] == "completed"


class _Hanging(BaseNotifier):
    """Stands for a notifier whose receiver never answers."""

    over = threading.Event()

    def notify(self, context: Any) -> None:
        self.over.wait(60)


def test_what_goes_wrong_is_logged_and_holds_up_nobody(
    mail: MailServer,
    hooks: Hooks,
    xcoms: dict[tuple[str, str], Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = context_of("failed", RuntimeError("boom"))
    via = [SmtpNotifier(to="ml@example.org", smtp_conn_id="no_such_connection"), _Hanging()]
    began = time.monotonic()
    with caplog.at_level(logging.ERROR):
        GpuJobNotifier(via=via, webhook_url=hooks.url, timeout=3)(failed)
    assert time.monotonic() - began < 50
    assert len(hooks.requests) == 1
    assert "1. SmtpNotifier: SMTP connection is not found" in caplog.text
    assert "2. _Hanging: it was not sent within 3 s" in caplog.text
    caplog.clear()
    mail.close()
    with caplog.at_level(logging.ERROR):
        GpuJobNotifier(via=SmtpNotifier(to="ml@example.org"), timeout=10)(failed)
    assert "Nobody was told" in caplog.text
    assert "The task itself is not affected" in caplog.text
    assert "Traceback" not in caplog.text
    _Hanging.over.set()


@pytest.mark.parametrize("send", [lambda call: call(), lambda call: _in_a_thread(call)])
def test_a_trigger_makes_it_again_and_sends_once_for_each_event(
    send: Callable[[Callable[[], Any]], Any], mail: MailServer, hooks: Hooks
) -> None:
    path, arguments = GpuJobNotifier(
        via=SmtpNotifier(to="ml@example.org"), webhook_url=hooks.url.partition("?")[0], only=["idle", "recovered"]
    ).serialize()
    notifier = resolve_name(path)(**json.loads(json.dumps(arguments)))
    assert notifier.serialize() == (path, arguments)
    status = JobStatus("job-1", JobState.RUNNING, attempt=2)
    ti = SimpleNamespace(dag_id="lab", run_id="manual__1", task_id="train", map_index=-1)
    how = {"cluster": "me@lab:22", "conn_id": "lab", "ti": ti}
    sent = [
        send(lambda: notifier.send_event(event, status, **how, event_id=f"job-1/2/{event}", attempt=2))  # noqa: B023
        for event in ("idle", "queued_for")
    ]
    assert sent == [True, False]
    assert [one["Subject"] for one in mail.mails] == ["Idle: lab.train on lab"]
    assert [headers["webhook-id"] for _, headers, _, _ in hooks.requests] == ["job-1/2/idle"]
    hooks.answers = [(404, {})]
    mail.close()
    with pytest.raises(NotSentError, match=r"nobody was told of job-1/2/idle .*SmtpNotifier: .*the webhook: "):
        notifier.send_event("idle", status, **how, event_id="job-1/2/idle", attempt=2)


def _in_a_thread(call: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "has nobody to tell: give via=, webhook_conn_id= or webhook_url="),
        ({"webhook_url": "example.org"}, "webhook_url gives no address"),
        ({"webhook_url": "https://a.org", "webhook_conn_id": "a"}, "either webhook_conn_id, or webhook_url"),
        ({"webhook_secret": "s", "webhook_conn_id": "a"}, "either webhook_conn_id, or webhook_url"),
        ({"webhook_secret": "s", "via": SmtpNotifier(to="a")}, "is the secret of a webhook_url"),
        ({"webhook_conn_id": "a", "only": "fail"}, "only='fail': a notifier can tell of completed, failed, timed_out"),
        ({"webhook_conn_id": "a", "only": []}, "only=nothing"),
        ({"webhook_conn_id": "a", "only": 5}, "only=5"),
        ({"webhook_conn_id": "a", "timeout": 0}, "timeout is a number of seconds"),
        ({"webhook_conn_id": "a", "timeout": "5"}, "timeout is a number of seconds"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidJobError, match=why):
        GpuJobNotifier(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"webhook_url": "https://example.org/x", "webhook_secret": "s3cret-key"},
        {"webhook_url": "https://me:s3cret-key@example.org/x"},
        {"webhook_url": "https://example.org/x?sig=s3cret-key"},
    ],
)
def test_a_secret_is_not_stored_with_a_trigger(arguments: dict[str, Any]) -> None:
    notifier = GpuJobNotifier(**arguments)
    assert "s3cret-key" not in repr(notifier)
    with pytest.raises(InvalidJobError, match=r"must not be stored with a trigger: .* webhook_conn_id") as refused:
        notifier.serialize()
    assert "s3cret-key" not in str(refused.value)
