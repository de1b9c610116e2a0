"""The same job by the rival. In a file of its own, so that its tasks do not import what ours need, nor ours its."""

from __future__ import annotations

from airflow.providers.ssh.operators.ssh_remote_job import SSHRemoteJobOperator
from airflow.sdk import DAG

COMMAND = "sleep 5"

with DAG("bench_ssh_remote_job", schedule=None):
    SSHRemoteJobOperator(task_id="train", ssh_conn_id="bench_ssh", command=COMMAND)
