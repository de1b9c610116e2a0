"""cancel_jobs_of_run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)


def cancel_jobs_of_run(context: Mapping[str, Any]) -> None:
    """
    Cancel all GPU jobs that the tasks of a DAG run have launched and that still wait or run.

    Meant to be a callback of a DAG::

        with DAG("train", dagrun_timeout=timedelta(hours=8), on_failure_callback=cancel_jobs_of_run):
            ...

    Airflow's DAG processor calls it when a run has failed, also by its ``dagrun_timeout``. It takes 30 seconds at most
    and never raises; the DAG processor's log says what it has done, and the cluster records who has asked. As
    ``on_success_callback`` it ends jobs that no task has waited for.

    A job that ends with its task or in a teardown anyway needs this only where Airflow does neither: see "When a task
    is ended" in the documentation of the operators.

    :param context: context of the callback.
    """
    from airflow_provider_gpu_cluster.callbacks.jobs_of_run import cancel_in_time, jobs_of_run

    _never_raise(lambda: cancel_in_time(jobs_of_run(context["dag"], context["run_id"]), context))


def cancel_forgotten_jobs(context: Mapping[str, Any]) -> None:
    """
    Cancel the GPU jobs of a failed run that should have ended with their task or in a teardown, which never ran.

    :param context: context of the callback.
    """
    from airflow_provider_gpu_cluster.callbacks.jobs_of_run import cancel_in_time, forgotten_jobs

    _never_raise(lambda: cancel_in_time(forgotten_jobs(context["dag"], context["run_id"]), context))


def _never_raise(work: Any) -> None:
    try:
        work()
    except Exception:
        log.exception("could not look for the GPU jobs of a DAG run that has ended")
