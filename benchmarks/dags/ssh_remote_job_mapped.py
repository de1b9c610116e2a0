"""The same mapped jobs by the rival."""

from __future__ import annotations

from airflow.providers.ssh.operators.ssh_remote_job import SSHRemoteJobOperator
from airflow.sdk import DAG

JOBS = {"bench_mapped_four_ssh_remote_job": ["sleep 20"] * 4, "bench_mapped_ssh_remote_job": ["sleep 20"] * 20}

for dag_id, commands in JOBS.items():
    with DAG(dag_id, schedule=None):
        SSHRemoteJobOperator.partial(task_id="train", ssh_conn_id="bench_ssh").expand(command=commands)
