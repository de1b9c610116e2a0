"""The environment variables that a job starts with."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from ..protocol.grace import grace_s
from ..store import records
from ..store.directories import Attempt, Root
from ..store.interpreter import with_interpreter
from .allocation import Allocation
from .foreign_variables import without_other_jobs, without_tasks

if TYPE_CHECKING:
    from ..protocol.records import AttemptRequest, Environment
    from ..protocol.spec import Spec

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
        RESUMED_FROM=request.get("recovery", {}).get("reason", ""),
        STOP_GRACE_S=_seconds(grace_s(spec, request["settings"])),
        TIME_LIMIT_AT=_time_limit_at(spec, allocation),
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


def _time_limit_at(spec: Spec, allocation: Allocation) -> str:
    """Return when the job has to end, in seconds since the epoch; an empty text without a limit."""
    ends = [] if allocation.ends_at is None else [allocation.ends_at]
    limit_s = spec.get("time_limit_s")
    if limit_s:
        ends.append(time.time() + limit_s)
    return str(int(min(ends))) if ends else ""


def _seconds(seconds: float) -> str:
    """Return a number of seconds without an exponent."""
    return str(int(seconds)) if seconds == int(seconds) else repr(seconds)
