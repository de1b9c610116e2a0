"""Reads the settings of a cluster from an Airflow Connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.connection import root_dir as root_dirs
from airflow_provider_gpu_cluster.connection.settings import TRANSFERS, ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.gpu_run.protocol import durations
from airflow_provider_gpu_cluster.jobs.sbatch_options import VALID, sbatch_options

if TYPE_CHECKING:
    from airflow.sdk import Connection

ENGINES = ("host", "slurm", "command")
DEFAULT_PORT = 22


def settings_of(connection: Connection) -> ClusterSettings:
    """
    Read the settings of a cluster from its connection.

    :raises GpuClusterSetupError: a field has an invalid value.
    """
    conn_id = connection.conn_id
    try:
        extra: dict[str, Any] = connection.extra_dejson
    except ValueError as error:
        raise GpuClusterSetupError(f"connection {conn_id}: its extra is not valid JSON: {error}") from None
    if not connection.host:
        raise bad_field(conn_id, "host", connection.host, "the name or address of the cluster")

    engine = _text(conn_id, extra, "engine") or "host"
    if engine not in ENGINES:
        raise bad_field(conn_id, "engine", engine, f"one of: {', '.join(ENGINES)}")
    transfer = _text(conn_id, extra, "transfer") or ClusterSettings.transfer
    if transfer not in TRANSFERS:
        raise bad_field(conn_id, "transfer", transfer, f"one of: {', '.join(TRANSFERS)}")
    launch_command = _text(conn_id, extra, "launch_command")
    if engine == "command" and launch_command is None:
        example = "'gpu-run --gpus {gpus} --memory {memory} {script}'"
        raise bad_field(conn_id, "launch_command", None, f"the site's command for jobs, such as {example}")
    if engine != "command" and launch_command is not None:
        raise bad_field(conn_id, "launch_command", launch_command, f"empty, as engine is {engine} and not command")
    root_dir = _text(conn_id, extra, "root_dir") or ClusterSettings.root_dir
    if not root_dirs.is_valid(root_dir):
        raise bad_field(conn_id, "root_dir", root_dir, root_dirs.VALID)
    lease_dir = _text(conn_id, extra, "lease_dir")
    if lease_dir is not None and "$" in lease_dir:
        raise bad_field(conn_id, "lease_dir", lease_dir, "a path without variables, the same for all users")
    return ClusterSettings(
        conn_id=conn_id,
        name=name_of(connection),
        engine=engine,
        root_dir=root_dir,
        python=_text(conn_id, extra, "python"),
        lease_dir=lease_dir,
        virtual_gpus=_count(conn_id, extra, "virtual_gpus"),
        partition=_text(conn_id, extra, "partition"),
        account=_text(conn_id, extra, "account"),
        qos=_text(conn_id, extra, "qos"),
        constraint=_text(conn_id, extra, "constraint"),
        sbatch_options=_sbatch_options(conn_id, extra, "sbatch_options"),
        slurm_interval_s=_seconds(conn_id, extra, "slurm_interval"),
        launch_command=launch_command,
        retention_s=_duration(conn_id, extra, "retention"),
        transfer=transfer,
    )


def name_of(connection: Connection) -> str:
    """Return a readable name of the cluster: ``user@host:port``, without the parts that are not given."""
    user = f"{connection.login}@" if connection.login else ""
    port = "" if connection.port in (None, DEFAULT_PORT) else f":{connection.port}"
    return f"{user}{connection.host}{port}"


def bad_field(conn_id: str, field: str, value: object, valid: str) -> GpuClusterSetupError:
    """Return the error for an invalid field of a connection."""
    return GpuClusterSetupError(f"connection {conn_id}: field {field} is {value!r}; it must be {valid}")


def _text(conn_id: str, extra: dict[str, Any], field: str) -> str | None:
    value = extra.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or "\n" in value or "\0" in value:
        raise bad_field(conn_id, field, value, "one line of text")
    return value.strip() or None


def _count(conn_id: str, extra: dict[str, Any], field: str) -> int | None:
    value = extra.get(field)
    if value is None or value == "":
        return None
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise bad_field(conn_id, field, value, "a whole number, 1 or more, or empty")
    return number


def _sbatch_options(conn_id: str, extra: dict[str, Any], field: str) -> tuple[str, ...]:
    try:
        return sbatch_options(_text(conn_id, extra, field) or "")
    except ValueError as error:
        raise bad_field(conn_id, field, extra[field], f"{VALID}: {error}") from None


def _seconds(conn_id: str, extra: dict[str, Any], field: str) -> float | None:
    value = extra.get(field)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise bad_field(conn_id, field, value, "a number of seconds, more than 0, or empty")
    return number


def _duration(conn_id: str, extra: dict[str, Any], field: str) -> float | None:
    value = extra.get(field)
    if value is None or value == "":
        return None
    try:
        return durations.seconds_of(value)
    except ValueError:
        raise bad_field(conn_id, field, value, f"{durations.VALID}, or empty") from None
