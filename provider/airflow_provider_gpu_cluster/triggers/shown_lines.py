"""
The lines of a job's output that an earlier trigger has already shown.

A trigger logs lines, and then acknowledges them on the cluster. If its triggerer is killed in between, the
acknowledgement is missing, but the log exists: in most installations on the same machine or volume, where the next
trigger of the same try can read it.
"""

from __future__ import annotations

import glob
import json
import os
from typing import Any

from airflow.configuration import conf
from airflow.utils.helpers import log_filename_template_renderer

from airflow_provider_gpu_cluster.triggers.output_log import LOGGER


def shown_lines(ti: Any) -> list[str]:
    """
    Return the lines of output in the logs of a try's triggers, if those logs are on this machine.

    :param ti: the task instance that the triggerer gave to the trigger.
    """
    path = os.path.join(conf.get("logging", "base_log_folder"), log_filename_template_renderer()(ti=ti))
    files = glob.glob(f"{glob.escape(path)}.trigger.*.log")
    return [line for file in sorted(files, key=os.path.getmtime) for line in _lines(file)]


def _lines(file: str) -> list[str]:
    lines = []
    with open(file, "rb") as log:
        for record in log:
            try:
                value = json.loads(record)
            except ValueError:
                # The triggerer was killed while it wrote this line.
                continue
            if isinstance(value, dict) and value.get("logger") == LOGGER:
                lines.append(str(value["event"]))
    return lines
