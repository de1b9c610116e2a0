"""The ``notify`` and ``notifier`` of operators and sensors, as a DAG author writes them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.notify import checked_notify, earliest, notify_when
from airflow_provider_gpu_cluster.notifications.gpu_job import GpuJobNotifier
from airflow_provider_gpu_cluster.operators.submit import SubmitGpuJobOperator
from airflow_provider_gpu_cluster.sensors.gpu_job import GpuJobSensor
from airflow_provider_gpu_cluster.task_groups.gpu_job import GpuJobTaskGroup

NOTIFIER = GpuJobNotifier(webhook_conn_id="hook")
WRITTEN = [
    "airflow_provider_gpu_cluster.notifications.gpu_job.GpuJobNotifier",
    {"timeout": 30, "webhook_conn_id": "hook"},
]


@pytest.mark.parametrize(
    ("notify", "when"),
    [
        (None, {}),
        ({}, {}),
        ({"queued_for": 1800, "idle": True}, {"queued_for": 1800.0, "idle": True}),
        ({"no_progress_for": timedelta(minutes=20)}, {"no_progress_for": 1200.0}),
        ({"time_limit_in": 0.5, "recovered": False, "idle": None}, {"time_limit_in": 0.5}),
    ],
)
def test_durations_become_seconds(notify: Any, when: Any) -> None:
    assert notify_when(notify) == when


@pytest.mark.parametrize(
    ("notify", "said"),
    [
        ({"queued": 5}, r"notify has the key 'queued' \(did you mean 'queued_for'\?\); valid are queued_for, no_prog"),
        ({"no-progress-for": 5}, r"did you mean 'no_progress_for'\?"),
        ({7: 5}, "notify has the key 7; valid are"),
        ({"queued_for": True}, r"notify\['queued_for'\] is True; it must be seconds above 0"),
        ({"queued_for": 0}, r"notify\['queued_for'\] is 0; it must be seconds above 0"),
        ({"queued_for": -1}, r"notify\['queued_for'\] is -1; it must be seconds above 0"),
        ({"queued_for": float("nan")}, r"notify\['queued_for'\] is nan; it must be seconds above 0"),
        ({"queued_for": "{{ params.wait }}"}, r"notify\['queued_for'\] is '{{ params.wait }}'; it must be seconds"),
        ({"idle": 600}, r"notify\['idle'\] is 600; it must be True or False"),
        ({"recovered": "yes"}, r"notify\['recovered'\] is 'yes'; it must be True or False"),
        (["idle"], "notify is a list; it must be a dict such as"),
        (True, "notify is a bool; it must be a dict such as"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(notify: Any, said: str) -> None:
    with pytest.raises(InvalidJobError, match=said):
        checked_notify(notify, NOTIFIER)


@pytest.mark.parametrize(
    ("notifier", "said"),
    [
        (None, r"notify says when people are to be told, and nothing how: give notifier=GpuJobNotifier\(...\)"),
        (SmtpNotifier(to="ml@example.org"), r"notifier is a SmtpNotifier; it must be a GpuJobNotifier"),
        (GpuJobNotifier, "notifier is the class GpuJobNotifier; it must be"),
        (print, "notifier is a builtin_function_or_method; it must be"),
    ],
)
def test_somebody_must_be_able_to_tell(notifier: Any, said: str) -> None:
    with pytest.raises(InvalidJobError, match=said):
        checked_notify({"idle": True}, notifier)


def test_an_error_names_the_task() -> None:
    with pytest.raises(InvalidJobError, match="task 'wait': notify has the key 'idel'"):
        GpuJobSensor(task_id="wait", job={}, notify={"idel": True}, notifier=NOTIFIER)
    with pytest.raises(InvalidJobError, match="task 'train': notify says when"):
        SubmitGpuJobOperator(task_id="train", command="true", notify={"idle": True})


def test_a_notifier_that_has_nothing_to_tell_is_no_error() -> None:
    """As a default argument, it is given to tasks that need none."""
    assert checked_notify(None, NOTIFIER) == ({}, None)


def test_the_earliest_of_two_conditions_counts() -> None:
    one, other = notify_when({"queued_for": 60, "idle": True}), notify_when({"queued_for": 30, "time_limit_in": 5})
    assert earliest(one, other) == {"queued_for": 30, "idle": True, "time_limit_in": 5}
    assert earliest({}, one) == one


def test_a_trigger_keeps_both_and_an_older_one_has_neither() -> None:
    with DAG("notifies", schedule=None):
        group = GpuJobTaskGroup(
            "train", command="true", destination="/models", deferrable=True, notify={"idle": True}, notifier=NOTIFIER
        )
        silent = GpuJobSensor(task_id="wait", job=group.submit.output, deferrable=True)
    kwargs = group.wait.start_trigger_args.trigger_kwargs  # type: ignore[union-attr]
    assert kwargs is not None
    assert (kwargs["notify"], kwargs["notifier"]) == ({"idle": True}, WRITTEN)
    assert "notify" not in silent.start_trigger_args.trigger_kwargs  # type: ignore[union-attr, operator]


def test_a_mapped_task_is_serialized_alike_each_time() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    def serialized() -> str:
        with DAG("maps", schedule=None, default_args={"retries": 1}) as dag:
            SubmitGpuJobOperator.partial(
                task_id="train", command="true", notify={"queued_for": timedelta(minutes=1)}, notifier=NOTIFIER
            ).expand(gpus=[1, 2])
        return str(DagSerialization.to_dict(dag))

    assert serialized() == serialized()
    assert str(WRITTEN[0]) in serialized()
    with pytest.raises(InvalidJobError, match="did you mean 'idle'"):
        SubmitGpuJobOperator.partial(task_id="train", notify={"idle_": True})
