"""Reads the settings of a cluster from an Airflow Connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_gpu_cluster.connection import root_dir as root_dirs
from airflow_provider_gpu_cluster.connection.settings import TRANSFERS, ClusterSettings
from airflow_provider_gpu_cluster.gpu_run.protocol.budgets import OVER_BUDGET
from airflow_provider_gpu_cluster.hooks.fields import Fields
from airflow_provider_gpu_cluster.jobs.sbatch_options import VALID, sbatch_options

if TYPE_CHECKING:
    from airflow.sdk import Connection

ENGINES = ("host", "slurm", "command")
ON_IDLE = ("warn", "cancel")
DEFAULT_PORT = 22


def settings_of(connection: Connection) -> ClusterSettings:
    """
    Read the settings of a cluster from its connection.

    :raises GpuClusterSetupError: a field has an invalid value, or there is one that means nothing.
    """
    fields = Fields(connection)
    fields.refuse_unknown()
    if not connection.host:
        raise fields.bad("host", connection.host, "the name or address of the cluster")

    engine = fields.text("engine") or "host"
    if engine not in ENGINES:
        raise fields.bad("engine", engine, f"one of: {', '.join(ENGINES)}")
    transfer = fields.text("transfer") or ClusterSettings.transfer
    if transfer not in TRANSFERS:
        raise fields.bad("transfer", transfer, f"one of: {', '.join(TRANSFERS)}")
    launch_command = fields.text("launch_command")
    if engine == "command" and launch_command is None:
        example = "'gpu-run --gpus {gpus} --memory {memory} {script}'"
        raise fields.bad("launch_command", None, f"the site's command for jobs, such as {example}")
    if engine != "command" and launch_command is not None:
        raise fields.bad("launch_command", launch_command, f"empty, as engine is {engine} and not command")
    root_dir = fields.text("root_dir") or ClusterSettings.root_dir
    if not root_dirs.is_valid(root_dir):
        raise fields.bad("root_dir", root_dir, root_dirs.VALID)
    lease_dir = fields.text("lease_dir")
    if lease_dir is not None and "$" in lease_dir:
        raise fields.bad("lease_dir", lease_dir, "a path without variables, the same for all users")
    return ClusterSettings(
        conn_id=connection.conn_id,
        name=name_of(connection),
        engine=engine,
        root_dir=root_dir,
        python=fields.text("python"),
        lease_dir=lease_dir,
        virtual_gpus=fields.count("virtual_gpus"),
        partition=fields.text("partition"),
        account=fields.text("account"),
        qos=fields.text("qos"),
        constraint=fields.text("constraint"),
        sbatch_options=_sbatch_options(fields),
        slurm_interval_s=fields.seconds("slurm_interval"),
        launch_command=launch_command,
        retention_s=fields.duration("retention"),
        grace_s=fields.duration("grace"),
        orphan_timeout_s=fields.duration("orphan_timeout"),
        min_gpu_utilization=fields.percent("min_gpu_utilization"),
        utilization_window_s=fields.duration("utilization_window"),
        on_idle=fields.one_of("on_idle", ON_IDLE),
        gpu_hours_budget=fields.gpu_hours("gpu_hours_budget"),
        over_budget=fields.one_of("over_budget", OVER_BUDGET),
        transfer=transfer,
        weight=fields.above_zero("weight") or ClusterSettings.weight,
        price_per_gpu_hour=fields.price("price_per_gpu_hour"),
    )


def name_of(connection: Connection) -> str:
    """Return a readable name of the cluster: ``user@host:port``, without the parts that are not given."""
    user = f"{connection.login}@" if connection.login else ""
    port = "" if connection.port in (None, DEFAULT_PORT) else f":{connection.port}"
    return f"{user}{connection.host}{port}"


def _sbatch_options(fields: Fields) -> tuple[str, ...]:
    written = fields.text("sbatch_options") or ""
    try:
        return sbatch_options(written)
    except ValueError as error:
        raise fields.bad("sbatch_options", written, f"{VALID}: {error}") from None
