"""Why a task has no job to show, in one sentence. No IO."""

from __future__ import annotations

LOOKS_AGAIN = "The page looks again every five seconds."

_NOT_ENDED = {
    None: "has not been started yet",
    "scheduled": "has not been started yet",
    "queued": "has not been started yet",
    "up_for_retry": "waits for its next try",
    "up_for_reschedule": "has not launched a job yet",
    "running": "has not launched a job yet",
    "deferred": "has not launched a job yet",
    "restarting": "is being started over",
}
_ENDED = {
    "failed": "failed before it launched a job, or was marked failed; its log says more",
    "success": "launched no job: it was marked as success, or it is not a task that launches one",
    "skipped": "was skipped, and launched no job",
    "upstream_failed": "launched no job, because a task before it failed",
    "removed": "is no longer in the DAG, and has left no job",
}


def why_no_job(state: str | None, *, odd: bool) -> str:
    """
    Return why there is nothing to show.

    :param state: the task's state in Airflow.
    :param odd: whether the task has left something else where the handle of a job is expected.
    """
    if state in _ENDED:
        if odd and state == "success":
            return "This task has left something else than a job in its XCom, so there is no job to show."
        return f"This task {_ENDED[state]}."
    waiting = _NOT_ENDED.get(state, f"is in the state {state}, and has not launched a job yet")
    return f"This task {waiting}. {LOOKS_AGAIN}"
