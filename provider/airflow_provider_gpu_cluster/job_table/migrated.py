"""Whether Airflow's database has the tables, as this version of the package needs them."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, String, Table, inspect, select
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table.tables import REVISION, VERSION_TABLE

NOT_MIGRATED = (
    "Airflow's database has no table of GPU jobs yet: run `airflow db migrate` once, and the jobs appear here by "
    "themselves."
)
OLDER = (
    "The table of GPU jobs in Airflow's database is that of an earlier version: run `airflow db migrate` once, and the "
    "jobs appear here by themselves."
)
NEWER = (
    "The table of GPU jobs in Airflow's database is that of another version of airflow-provider-gpu-cluster (revision "
    "{revision}, and this one needs {needed}): use one version for `airflow db migrate` and for the API server."
)
# Oldest first.
REVISIONS = (REVISION,)
_versions = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32)))


def what_is_missing(session: Session) -> str | None:
    """Return what to do until there is a table of jobs, in one sentence; None if it is there."""
    if not inspect(session.connection()).has_table(VERSION_TABLE):
        return NOT_MIGRATED
    revision = session.scalar(select(_versions.c.version_num))
    if revision == REVISION:
        return None
    if revision is None:
        return NOT_MIGRATED
    return OLDER if revision in REVISIONS else NEWER.format(revision=revision, needed=REVISION)
