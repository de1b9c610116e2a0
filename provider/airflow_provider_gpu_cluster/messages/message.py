"""A message about a job, ready to be sent, and the task that it is about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from typing import Any

# Chats show the beginning of longer messages, or refuse them.
_MOST_IN_A_CHAT = 1_900


@dataclass(frozen=True)
class JobTask:
    """
    The task that a message is about, as far as known.

    :param map_index: None or -1 unless it is mapped.
    :param try_number: its try, from 1; None if not known.
    :param tries: how many tries it has; None if not known.
    :param will_retry: Airflow tries it again.
    :param job_url: address of the job's page in Airflow's UI; empty if the deployment's address is not known.
    :param task_url: address of the task in Airflow's UI; likewise.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int | None = None
    try_number: int | None = None
    tries: int | None = None
    will_retry: bool = False
    job_url: str = ""
    task_url: str = ""

    @property
    def is_mapped(self) -> bool:
        """Whether it is one of several instances of its task."""
        return self.map_index is not None and self.map_index >= 0

    @property
    def name(self) -> str:
        """DAG and task in one word, as Airflow's own notifications have it."""
        return f"{self.dag_id}.{self.task_id}{f'[{self.map_index}]' if self.is_mapped else ''}"


@dataclass(frozen=True)
class JobMessage:
    """
    A message about a job.

    Templates of a notifier that :class:`.GpuJobNotifier` hands it to find it as ``gpu_job``, as in
    ``{{ gpu_job.subject }}``.

    :param kind: what it tells: one of :data:`.messages.kinds.KINDS`.
    :param event: the last part of its event id, by which the cluster remembers that it was told.
    :param event_id: the same for all messages about the same event, so that a receiver can drop doubles.
    :param subject: one line.
    :param text: plain text.
    :param chat: the same for a chat, shorter.
    :param html: an HTML document that needs nothing from elsewhere, for a mail.
    :param payload: the same as JSON values; ``docs/notifications.md`` describes them.
    """

    kind: str
    event: str
    event_id: str
    subject: str
    text: str
    chat: str
    html: str
    payload: dict[str, Any]

    @property
    def json(self) -> str:
        """The payload as JSON."""
        return json.dumps(self.payload, allow_nan=False)

    @property
    def short(self) -> str:
        """The text for a chat, with its subject, cut to what Discord takes; nobody is called by an ``@`` in it."""
        return _cut(f"{self.subject}\n{self.chat}".replace("@", "@\N{ZERO WIDTH SPACE}"))

    @property
    def slack(self) -> str:
        """The same for Slack: nothing that a job has printed is a link, or calls anybody."""
        return escape(_cut(f"{self.subject}\n{self.chat}"), quote=False)

    def __str__(self) -> str:
        return self.subject


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_IN_A_CHAT else text[: _MOST_IN_A_CHAT - 1].rstrip() + "…"
