"""Airflow's own notifiers as carriers of a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import BaseNotifier
from airflow.sdk.log import mask_secret

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.messages.message import JobMessage
from airflow_provider_gpu_cluster.notifications.carriers import carriers_of, parts_of, send, written

TEXT = "the text of @you <!here> {{ 7 * 7 }}"
MESSAGE = JobMessage("failed", "failed", "job/1/failed", "Failed: job", TEXT, TEXT, "<p>{{ 7 * 7 }}</p>", {"a": 1})


class _Recording(BaseNotifier):
    """Notes what a notifier of a provider that is not installed here would send. It has the fields of the real one."""

    sent: list[dict[str, Any]] = []

    def notify(self, context: Any) -> None:
        self.sent.append({name: getattr(self, name) for name in self.template_fields})


class SlackNotifier(_Recording):
    """Stands for apache-airflow-providers-slack's."""

    template_fields: Sequence[str] = ("text", "channel", "blocks", "slack_conn_id")

    def __init__(
        self,
        *,
        slack_conn_id: str = "slack_default",
        text: str = "This is a default message",
        channel: str = "#general",
        blocks: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.slack_conn_id = slack_conn_id
        self.text = text
        self.channel = channel
        self.blocks = blocks


class AppriseNotifier(_Recording):
    """Stands for apache-airflow-providers-apprise's."""

    template_fields: Sequence[str] = ("body", "title", "apprise_conn_id")

    def __init__(
        self, *, body: str, title: str | None = None, apprise_conn_id: str = "apprise_default", config: Any = None
    ) -> None:
        super().__init__()
        self.body = body
        self.title = title
        self.apprise_conn_id = apprise_conn_id
        self.config = config


class HttpNotifier(_Recording):
    """Stands for apache-airflow-providers-http's."""

    template_fields: Sequence[str] = ("http_conn_id", "json")

    def __init__(self, *, http_conn_id: str = "http_default", json: Any = None, password: str = "") -> None:
        super().__init__()
        self.http_conn_id = http_conn_id
        self.json = json
        self.password = password


@pytest.fixture(autouse=True)
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(_Recording, "sent", sent)
    return sent


def test_fields_that_are_left_out_get_their_part_of_the_message() -> None:
    assert parts_of(SmtpNotifier(to="a@example.org")) == {"html_content": "html", "subject": "subject"}
    assert parts_of(SmtpNotifier(to="a@example.org", subject="x")) == {"html_content": "html"}
    assert parts_of(SlackNotifier()) == {"text": "slack"}
    assert parts_of(SlackNotifier(text="{{ gpu_job.subject }}")) == {}
    assert parts_of(AppriseNotifier(body="")) == {"body": "text", "title": "subject"}


def test_a_message_is_put_in_as_it_is_whatever_its_text_looks_like(sent: list[dict[str, Any]]) -> None:
    carrier = AppriseNotifier(body="", title="{{ gpu_job.kind }} of {{ ti }}")
    for _ in range(2):
        send(carrier, MESSAGE, {"ti": "nightly"})
    assert sent == 2 * [{"body": MESSAGE.text, "title": "failed of nightly", "apprise_conn_id": "apprise_default"}]


def test_in_slack_nothing_that_a_job_prints_calls_anybody(sent: list[dict[str, Any]]) -> None:
    send(SlackNotifier(), MESSAGE, {})
    assert sent[0]["text"] == "Failed: job\nthe text of @you &lt;!here&gt; {{ 7 * 7 }}"


def test_templates_of_any_depth_find_the_message(sent: list[dict[str, Any]]) -> None:
    """As docs/notifications.md does for Teams."""
    card = {"type": "message", "attachments": [{"content": {"text": "{{ gpu_job.short }}"}}, "{{ gpu_job.json }}"]}
    send(HttpNotifier(json=card), MESSAGE, {})
    (content, payload) = sent[0]["json"]["attachments"]
    assert content["content"]["text"].startswith("Failed: job\nthe text of @\u200byou")
    assert payload == '{"a": 1}'


@pytest.mark.parametrize(
    "notifier",
    [
        SmtpNotifier(
            to=["a@example.org", "{{ params.boss }}"], subject="GPU: {{ gpu_job.subject }}", smtp_conn_id="mail"
        ),
        SlackNotifier(channel="#gpu"),
        AppriseNotifier(body="{{ gpu_job.text }}"),
        HttpNotifier(json={"text": ["{{ gpu_job.json }}"]}),
    ],
)
def test_a_notifier_can_be_written_down_and_made_again(notifier: BaseNotifier) -> None:
    path, arguments = written(notifier)
    (again,) = carriers_of([[path, arguments]])
    assert type(again) is type(notifier)
    for name in notifier.template_fields:
        assert getattr(again, name) == getattr(notifier, name) or name == "blocks"
    assert written(again) == [path, arguments]


def test_a_secret_is_not_written_down() -> None:
    mask_secret("a-token-that-airflow-knows")
    for notifier in (
        HttpNotifier(password="hunter2"),
        HttpNotifier(json={"headers": {"authorization": "Bearer x"}}),
        HttpNotifier(http_conn_id="a-token-that-airflow-knows"),
    ):
        with pytest.raises(
            InvalidJobError, match=r"is a secret, which must not be stored .* put it into a connection"
        ) as e:
            written(notifier)
        assert "hunter2" not in str(e.value)


def test_what_cannot_be_written_down_is_named() -> None:
    with pytest.raises(InvalidJobError, match="via: config of AppriseNotifier is a object, which cannot be kept"):
        written(AppriseNotifier(body="", config=object()))


def test_a_class_of_a_file_of_dags_cannot_be_found_by_a_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlackNotifier, "__module__", "unusual_prefix_5f3e_nightly")
    with pytest.raises(InvalidJobError, match="SlackNotifier is defined in a file of DAGs"):
        written(SlackNotifier())


@pytest.mark.parametrize(
    ("via", "why"),
    [
        ("slack", "via is a notifier of Airflow, such as SmtpNotifier"),
        (SmtpNotifier, "not a ABCMeta|not a type"),
        (5, "not a int"),
        (("no.such.Notifier", {}), "no.such.Notifier cannot be made of .*No module named 'no'"),
        (("airflow.providers.smtp.notifications.smtp.SmtpNotifier", {"two": 2}), "SmtpNotifier cannot be made of"),
        (("json.JSONDecoder", {}), "json.JSONDecoder is not a notifier of Airflow"),
        ([SmtpNotifier(to="a"), None], "not a NoneType"),
    ],
)
def test_what_is_no_notifier_is_refused(via: Any, why: str) -> None:
    with pytest.raises(InvalidJobError, match=why):
        carriers_of(via)


def test_one_or_several_in_either_form() -> None:
    written_form = ("airflow.providers.smtp.notifications.smtp.SmtpNotifier", {"to": "a@example.org"})
    assert len(carriers_of(written_form)) == len(carriers_of(SmtpNotifier(to="a"))) == 1
    assert len(carriers_of([written_form, SmtpNotifier(to="a"), list(written_form)])) == 3
    assert carriers_of(None) == carriers_of([]) == ()
