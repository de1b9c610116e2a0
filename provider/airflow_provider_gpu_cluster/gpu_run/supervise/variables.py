"""The environment variables that a job starts with."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..store import records
from ..store.directories import Attempt, Root
from ..store.interpreter import with_interpreter
from .allocation import Allocation
from .foreign_variables import without_other_jobs, without_tasks

if TYPE_CHECKING:
    from ..protocol.records import AttemptRequest, Environment

# Variables that sshd, systemd and the shell set for the login that happened to start all this, or Slurm for the
# supervisor's script; they say nothing about the job.
_FOREIGN = (
    "DBUS_SESSION_BUS_ADDRESS",
    "OLDPWD",
    "PWD",
    "SHLVL",
    "SLURM_EXPORT_ENV",
    "SLURM_GET_USER_ENV",
    "SSH_AUTH_SOCK",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "VIRTUAL_ENV",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_ID",
)


def job_variables(attempt: Attempt, request: AttemptRequest, allocation: Allocation) -> dict[str, str]:
    """
    Return the variables, including the job's own.

    The job's own are deleted from the disk at once, unless a next attempt may follow by itself.
    """
    job = attempt.job
    spec = request["spec"]
    env = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    env = without_tasks(env if allocation.is_scheduled else without_other_jobs(env))
    env.update(
        JOB_ID=job.job_id,
        JOB_DIR=job.path,
        OUTPUT_DIR=job.at("outputs"),
        LOG_DIR=job.at("logs"),
        DATA_DIR=job.at("data"),
        MODEL_DIR=job.at("models"),
        CHECKPOINT_DIR=job.at("outputs", "checkpoints"),
        PROGRESS_FILE=job.at("logs", "progress.jsonl"),
        ATTEMPT=str(attempt.number),
        PYTHONUNBUFFERED="1",
        **allocation.variables(),
    )
    if spec.get("cpus"):
        env["OMP_NUM_THREADS"] = str(spec["cpus"])
    python = request.get("interpreter") or sys.executable
    if python:
        root = Root(os.path.dirname(job.path))
        env.update(PYTHON=python, PATH=with_interpreter(root, python, env.get("PATH", os.defpath)))
    built: Environment | None = records.read_json(attempt.at("environment.json"))
    if built:
        env["VIRTUAL_ENV"] = built["path"]
        env.pop("PYTHON", None)
    if request.get("array"):
        env.update(ARRAY_INDEX=str(request["array"]["index"]), ARRAY_COUNT=str(request["array"]["count"]))
    env.update(request.get("context", {}))
    own: dict[str, str] | None = records.read_json(attempt.at("env.json"), records.MOST_BYTES_OF_LISTS)
    env.update(own or {})
    if not spec.get("recover"):
        attempt.forget_secrets()
    return env
