"""A job of the rival that fails, so that Airflow starts it again as soon as it can."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.ssh.operators.ssh_remote_job import SSHRemoteJobOperator
from airflow.sdk import DAG

# The command notes when it begins, and when it ends.
MARKS = os.environ.get("BENCH_MARKS", "/dev/null")
TRIES = 8

with DAG("bench_again_ssh_remote_job", schedule=None):
    SSHRemoteJobOperator(
        task_id="train",
        ssh_conn_id="bench_ssh",
        command=f"date +%s.%N >> {MARKS}; sleep 1; date +%s.%N >> {MARKS}; test $(wc -l < {MARKS}) -ge {2 * TRIES}",
        retries=TRIES - 1,
        retry_delay=timedelta(0),
    )
