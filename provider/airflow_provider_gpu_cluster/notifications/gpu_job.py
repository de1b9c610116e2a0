"""GpuJobNotifier."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from airflow_provider_gpu_cluster.exceptions import GpuClusterError, InvalidJobError
from airflow_provider_gpu_cluster.messages.kinds import KINDS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_gpu_cluster.jobs.status import JobStatus
    from airflow_provider_gpu_cluster.messages.message import JobMessage
    from airflow_provider_gpu_cluster.notifications.carriers import Carrier

log = logging.getLogger(__name__)

_LONGEST_S = 300.0


class NotSentError(GpuClusterError):
    """A message reached nobody."""


class GpuJobNotifier(BaseNotifier):
    """
    Tells people how a GPU job has ended, or what it does while it waits or runs.

    As a callback of a task that launches, awaits or collects a job, or of a DAG::

        SubmitGpuJobOperator(
            task_id="train",
            ...,
            on_failure_callback=GpuJobNotifier(via=SmtpNotifier(to="ml@example.org")),
        )

    and as ``notifier`` beside ``notify``. A notifier never fails a task: what could not be sent is an error in the log.
    See docs/notifications.md.

    :param via: one or more notifiers of Airflow, such as ``SmtpNotifier(to=...)``, which carry the message. A field
        that you leave out gets its part of it; in a field that you give, templates find it as ``gpu_job``, such as
        ``{{ gpu_job.subject }}``, ``{{ gpu_job.text }}`` and ``{{ gpu_job.html }}``. May also be given as the path of a
        class with its arguments, ``("package.Notifier", {"to": ...})``.
    :param webhook_conn_id: connection (of any type, such as HTTP) of a webhook that gets the message as JSON: the
        address as its host, and as its password the secret with which requests are signed.
    :param webhook_url: the address of the webhook, instead of a connection.
    :param webhook_secret: with which requests to it are signed. A notifier that a trigger sends takes it from a
        connection.
    :param only: what to tell, of ``completed``, ``failed``, ``timed_out``, ``recovered``, ``idle``,
        ``resources_exhausted``, ``system_error``, ``cancelled``, ``queued_for``, ``no_progress_for`` and
        ``time_limit_in``; by default everything.
    :param timeout: how long sending may take in all, in seconds.
    :param context: context of Airflow, if not given at the call.
    """

    def __init__(
        self,
        *,
        via: Carrier | Collection[Carrier] | None = None,
        webhook_conn_id: str | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        only: str | Collection[str] | None = None,
        timeout: float = 30,
        context: Context | None = None,
    ) -> None:
        from airflow_provider_gpu_cluster.notifications.carriers import carriers_of
        from airflow_provider_gpu_cluster.notifications.receiver import checked_url, hide_secret

        super().__init__(context=context)
        self.via = carriers_of(via)
        self.webhook_conn_id = webhook_conn_id
        self.webhook_url = webhook_url
        self.webhook_secret = webhook_secret
        self.only = _kinds(only)
        self.timeout = timeout
        if not self.via and webhook_conn_id is None and webhook_url is None:
            raise InvalidJobError("GpuJobNotifier has nobody to tell: give via=, webhook_conn_id= or webhook_url=")
        if webhook_conn_id is not None and (webhook_url is not None or webhook_secret is not None):
            raise InvalidJobError("give either webhook_conn_id, or webhook_url with its webhook_secret")
        if webhook_url is not None:
            checked_url(webhook_url, "webhook_url")
        if webhook_secret is not None and webhook_url is None:
            raise InvalidJobError("webhook_secret is the secret of a webhook_url, which is not given")
        hide_secret(webhook_secret)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= _LONGEST_S:
            raise InvalidJobError(f"timeout is a number of seconds up to {_LONGEST_S:g}, not {timeout!r}")

    def notify(self, context: Context) -> None:
        """Tell about the job of a task, or about the jobs of a DAG run, of which this is a callback."""
        from airflow_provider_gpu_cluster.notifications.callback import tell_of_callback

        send = partial(self.send, context=context)
        tell_of_callback(send, context, notifier=self, only=self.only, receivers=self._receivers())

    async def async_notify(self, context: Context) -> None:
        """Do the same in a trigger."""
        import asyncio

        await asyncio.to_thread(self.notify, context)

    def send(self, message: JobMessage, context: Mapping[str, Any] | None = None) -> bool:
        """
        Send a message.

        May be called in any thread but that of an event loop, and takes ``timeout`` seconds at most.

        :param context: for templates of ``via``.
        :return: whether it was sent; not if it is none of ``only``.
        :raises NotSentError: nobody has got it.
        """
        from airflow_provider_gpu_cluster.notifications import carriers, delivery

        if message.kind not in self.only:
            return False
        sends = {
            f"{number}. {type(carrier).__name__}" if len(self.via) > 1 else type(carrier).__name__: (
                partial(carriers.send, carrier, message, context or {})
            )
            for number, carrier in enumerate(self.via, 1)
        }
        if self.webhook_conn_id is not None or self.webhook_url is not None:
            sends["the webhook"] = partial(self._post, message)
        failures = delivery.deliver(sends, within_s=self.timeout)
        told = "; ".join(f"{name}: {why}" for name, why in failures.items())
        if len(failures) == len(sends):
            raise NotSentError(f"nobody was told of {message.event_id} ({message.subject}): {told}")
        if failures:
            log.error("A message about a GPU job was sent, but not to all (%s): %s", message.subject, told)
        return True

    def send_event(
        self,
        event: str,
        status: JobStatus,
        *,
        cluster: str,
        conn_id: str,
        ti: Any,
        event_id: str,
        attempt: int,
        facts: Mapping[str, float] | None = None,
    ) -> bool:
        """
        Send a message about what a job does while it waits or runs.

        :param event: ``queued_for``, ``no_progress_for``, ``time_limit_in``, ``recovered`` or ``idle``.
        :param cluster: name of the cluster, ``user@host:port``.
        :param conn_id: connection of the cluster.
        :param ti: the task instance, or anything with its names; None if not known.
        :param event_id: the same for all messages about this event.
        :param attempt: number of the job's attempt.
        :param facts: of ``limit_s``, ``for_s`` and ``left_s``, those that belong to the event.
        :return: whether it was sent; not if it is none of ``only``.
        :raises NotSentError: nobody has got it.
        """
        from airflow_provider_gpu_cluster.messages.builder import About, message_of_condition
        from airflow_provider_gpu_cluster.tasks.told_task import told_task

        if event not in self.only:
            return False
        about = About(conn_id=conn_id, cluster=cluster, task=told_task(ti))
        message = message_of_condition(event, status, about, facts=facts or {}, event_id=event_id, attempt=attempt)
        return self.send(message, {"ti": ti, "task_instance": ti} if ti is not None else {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """
        Return the path of this class and the arguments that make the same notifier, as JSON values.

        :raises InvalidJobError: an argument is a secret, which must not be stored with a trigger, or no plain value.
        """
        from airflow_provider_gpu_cluster.notifications.carriers import written
        from airflow_provider_gpu_cluster.notifications.receiver import storable_url

        if self.webhook_secret is not None:
            raise InvalidJobError(
                "a webhook_secret must not be stored with a trigger: put address and secret into a connection, and "
                "give its id as webhook_conn_id"
            )
        arguments: dict[str, Any] = {"timeout": self.timeout}
        if self.via:
            arguments["via"] = [written(carrier) for carrier in self.via]
        if self.webhook_conn_id is not None:
            arguments["webhook_conn_id"] = self.webhook_conn_id
        if self.webhook_url is not None:
            arguments["webhook_url"] = storable_url(self.webhook_url)
        if self.only != frozenset(KINDS):
            arguments["only"] = sorted(self.only)
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    def _receivers(self) -> str:
        """Return a word for the receivers, the same in every process; another one for others."""
        from airflow_provider_gpu_cluster.notifications.carriers import identity_of

        parts = [*map(identity_of, self.via), self.webhook_conn_id, self.webhook_url]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=6).hexdigest()

    def _post(self, message: JobMessage) -> None:
        from airflow_provider_gpu_cluster.notifications.receiver import receiver_of
        from airflow_provider_gpu_cluster.notifications.webhook import post

        post(message, receiver_of(self.webhook_conn_id, self.webhook_url, self.webhook_secret), try_for_s=self.timeout)


def _kinds(only: Any) -> frozenset[str]:
    if only is None:
        return frozenset(KINDS)
    given = [only] if isinstance(only, str) else only
    unknown = [kind for kind in given if kind not in KINDS] if isinstance(given, Collection) else [given]
    if unknown or not given:
        what = ", ".join(map(repr, unknown)) or "nothing"
        raise InvalidJobError(f"only={what}: a notifier can tell of {', '.join(KINDS)}")
    return frozenset(given)
