"""
What an earlier trigger of the same try has already shown in the task's log.

A trigger logs lines, and then acknowledges them on the cluster. If its triggerer is killed in between, the
acknowledgement is missing, but the log exists: in most installations on the same machine or volume, where the next
trigger of the same try can read it.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from typing import Any

from airflow.configuration import conf
from airflow.utils.helpers import log_filename_template_renderer

from airflow_provider_gpu_cluster.logs.job_log import GOES_ON, IS_IDLE, IS_IDLE_NO_MORE
from airflow_provider_gpu_cluster.triggers.output_log import LOGGER


def shown_lines(ti: Any) -> list[str]:
    """
    Return the lines of output in the logs of a try's triggers, if those logs are on this machine.

    :param ti: the task instance that the triggerer gave to the trigger.
    """
    return [str(record["event"]) for record in _records(ti) if record.get("logger") == LOGGER]


def told_attempts(ti: Any) -> int:
    """
    Return the number of the last attempt of which the logs of a try's triggers say that the job went on after it.

    :param ti: the task instance that the triggerer gave to the trigger.
    """
    said = [str(record.get("event")) for record in _records(ti) if record.get("logger") != LOGGER]
    numbers = [event.removeprefix(GOES_ON) for event in said if event.startswith(GOES_ON)]
    return max((int(number) - 1 for number in numbers if number.isdecimal()), default=0)


def told_idle(ti: Any) -> list[Any] | None:
    """
    Return the attempt and the level of the last line in the logs of a try's triggers that says that its job is idle;
    None when there is none, or when it was idle no more.

    :param ti: the task instance that the triggerer gave to the trigger.
    """
    told = None
    for record in _records(ti):
        event = str(record.get("event"))
        if record.get("logger") != LOGGER and event.startswith(IS_IDLE):
            told = [record.get("attempt"), record.get("idle_for")]
        elif event == IS_IDLE_NO_MORE:
            told = None
    return told


def _records(ti: Any) -> Iterator[dict[str, Any]]:
    path = os.path.join(conf.get("logging", "base_log_folder"), log_filename_template_renderer()(ti=ti))
    files = glob.glob(f"{glob.escape(path)}.trigger.*.log")
    for file in sorted(files, key=os.path.getmtime):
        with open(file, "rb") as log:
            for record in log:
                try:
                    value = json.loads(record)
                except ValueError:
                    # The triggerer was killed while it wrote this line.
                    continue
                if isinstance(value, dict):
                    yield value
