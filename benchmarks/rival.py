"""Jobs of SSHRemoteJobOperator, started and waited for as it does, without a whole Airflow around it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from airflow.providers.ssh.hooks.ssh import SSHHook
from airflow.providers.ssh.triggers.ssh_remote_job import SSHRemoteJobTrigger
from airflow.providers.ssh.utils.remote_job import RemoteJobPaths, build_posix_wrapper_command, generate_job_id

from benchmarks.measure import SSH_CONN_ID, Bench


def start_remote_jobs(cluster: Bench, commands: Iterable[str]) -> list[RemoteJobPaths]:
    """Start jobs, all over one connection; the operator makes one for each."""
    jobs = []
    cluster.connect().close()  # sets the Airflow connections
    with SSHHook(ssh_conn_id=SSH_CONN_ID, banner_timeout=30.0).get_conn() as client:
        for command in commands:
            job_id = generate_job_id(dag_id="bench", task_id="wait", run_id="bench", try_number=1)
            paths = RemoteJobPaths(job_id=job_id, remote_os="posix", base_dir=str(cluster.folder / "remote-jobs"))
            # By this variable the job is found and ended with the benchmark.
            environment = {"BENCH_FOLDER": str(cluster.folder)}
            wrapper = build_posix_wrapper_command(command=command, paths=paths, environment=environment)
            _, stdout, _ = client.exec_command(wrapper)
            assert stdout.channel.recv_exit_status() == 0
            jobs.append(paths)
    return jobs


def remote_job_trigger(job: RemoteJobPaths) -> SSHRemoteJobTrigger:
    """Return the trigger that SSHRemoteJobOperator defers to, with its defaults."""
    return SSHRemoteJobTrigger(
        ssh_conn_id=SSH_CONN_ID,
        remote_host=None,
        job_id=job.job_id,
        job_dir=job.job_dir,
        log_file=job.log_file,
        exit_code_file=job.exit_code_file,
        remote_os=job.remote_os,
    )


def ended_at(job: RemoteJobPaths) -> float:
    """Return when a job has ended, in seconds since the epoch."""
    return Path(job.exit_code_file).stat().st_mtime
