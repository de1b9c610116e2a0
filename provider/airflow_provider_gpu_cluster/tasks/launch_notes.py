"""
The note that a launch leaves in Airflow for the table of all jobs: what its row needs and its handle does not have.

It is an XCom of the task that has launched the job, as workers and triggers can write nothing else into Airflow's
database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from airflow.sdk.log import redact  # type: ignore[attr-defined]

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import hidden_in

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.masks import Masks
    from airflow_provider_gpu_cluster.gpu_run.protocol.requests import Asker
    from airflow_provider_gpu_cluster.gpu_run.protocol.spec import Spec
    from airflow_provider_gpu_cluster.jobs.submission import Submission

# What a launch was asked for, as far as people compare jobs by it.
_OF_A_SPEC = (
    "entry_script",
    "script_args",
    "command",
    "gpus",
    "gpu_type",
    "nodes",
    "cpus",
    "memory_bytes",
    "time_limit_s",
    "priority",
    "partition",
)
_MOST_CHARACTERS = 300
_MOST_ARGUMENTS = 20


def launch_note(submission: Submission, *, spec: Spec, record: Asker, masks: Masks | None) -> dict[str, Any]:
    """
    Return the note about a job that was launched, or found.

    :param spec: what it was asked to run.
    :param record: who asked.
    :param masks: masks of its secrets, which are hidden in the note.
    """
    asked = {name: _cut(hidden_in(value, masks)) for name in _OF_A_SPEC if (value := spec.get(name)) is not None}
    who = {"user": record.get("triggered_by") or record.get("owner"), "owner": record.get("owner")}
    status = submission.status
    note: dict[str, Any] = {
        **submission.handle.to_json(),
        **{name: value for name, value in who.items() if value},
        "state": str(status.state),
        "attempt": status.attempt,
        "request": asked,
    }
    for part, (state, attempt) in zip(note.get("parts", ()), submission.parts, strict=False):
        part.update(state=str(state), attempt=attempt)
    # What Airflow masks in the task's log.
    return cast("dict[str, Any]", redact(note))


def _cut(value: object) -> object:
    if isinstance(value, str):
        return value[:_MOST_CHARACTERS]
    return [_cut(item) for item in value[:_MOST_ARGUMENTS]] if isinstance(value, list) else value
