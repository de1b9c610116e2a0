"""
The policy that gives DAGs a callback for jobs which Airflow would leave behind.

When a DAG run has exceeded its ``dagrun_timeout``, Airflow's scheduler skips all tasks that have not ended, teardowns
included, and tells no task. All that it still does is call the DAG's ``on_failure_callback``.
"""

from __future__ import annotations

import sys
from typing import Any

from airflow.policies import hookimpl

from airflow_provider_gpu_cluster.callbacks.gpu_job import cancel_forgotten_jobs, cancel_jobs_of_run


@hookimpl
def dag_policy(dag: Any) -> None:
    """Let the failure of a run end jobs whose task, or whose teardown, Airflow has skipped."""
    if not _has_jobs(dag):
        return
    callbacks = dag.on_failure_callback
    callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []
    if cancel_forgotten_jobs not in callbacks and cancel_jobs_of_run not in callbacks:
        dag.on_failure_callback = [*callbacks, cancel_forgotten_jobs]
        # Airflow works this out when the DAG is made, and tells only this to the scheduler.
        dag.has_on_failure_callback = True


def _has_jobs(dag: Any) -> bool:
    # A DAG that launches jobs has imported the operators.
    submit = sys.modules.get("airflow_provider_gpu_cluster.operators.submit")
    stage = sys.modules.get("airflow_provider_gpu_cluster.operators.stage")
    kinds = tuple(
        kind
        for kind in (getattr(submit, "SubmitGpuJobOperator", None), getattr(stage, "StageGpuJobOperator", None))
        if kind is not None
    )
    for task in dag.tasks if kinds else ():
        kind = getattr(task, "operator_class", type(task))
        if isinstance(kind, type) and issubclass(kind, kinds):
            return True
    return False
