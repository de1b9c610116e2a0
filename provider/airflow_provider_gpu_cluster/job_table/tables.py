"""
The tables: a row for each job, what it has used in each attempt, and how far each source was read.

What lists are filtered and sorted by has columns in a narrow table; what is only shown is JSON in one beside it.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    true,
)

from airflow_provider_gpu_cluster.job_table.column_types import JSON_VALUE, ROW_ID, TABLE_OPTIONS, UtcTime

REVISION = "0001_jobs"
"""The newest of ``migrations/versions/``, which makes the tables as they are here."""
VERSION_TABLE = "alembic_version_gpu_cluster"
ID_LENGTH = 250

metadata = MetaData(
    naming_convention={
        "ix": "idx_%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_uq",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

jobs = Table(
    "gpu_cluster_job",
    metadata,
    Column("id", ROW_ID, primary_key=True, autoincrement=True),
    Column("conn_id", String(ID_LENGTH), nullable=False),
    Column("job_id", String(100), nullable=False),
    # The task instance that has launched it.
    Column("dag_id", String(ID_LENGTH), nullable=False),
    Column("run_id", String(ID_LENGTH), nullable=False),
    Column("task_id", String(ID_LENGTH), nullable=False),
    Column("map_index", Integer, nullable=False, server_default="-1"),
    # Whether the task instance has launched no other job since.
    Column("is_latest", Boolean, nullable=False, server_default=true()),
    # Whether the launch itself has told this; a ledger knows less of it.
    Column("is_launched", Boolean, nullable=False, server_default=false()),
    Column("engine", String(20)),
    Column("element_count", Integer),
    Column("user_name", String(ID_LENGTH)),
    Column("owner", String(ID_LENGTH)),
    Column("state", String(20), nullable=False),
    Column("reason", String(50)),
    Column("kind", String(100)),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("gpus", Integer),
    Column("gpu_type", String(ID_LENGTH)),
    Column("host", String(ID_LENGTH)),
    Column("submitted_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("gpu_seconds", Double),
    Column("used_gpu_seconds", Double),
    Column("message", Text),
    Column("job_dir", Text),
    # What `q` looks into: small letters, and all that names the job in one text.
    Column("search_text", Text, nullable=False),
    UniqueConstraint("conn_id", "job_id"),
    Index(None, "submitted_at", "id"),
    Index(None, "dag_id", "run_id", "task_id"),
    Index(None, "state", "submitted_at"),
    **TABLE_OPTIONS,
)

details = Table(
    "gpu_cluster_job_detail",
    metadata,
    Column("job", ROW_ID, ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("request", JSON_VALUE),
    Column("metrics", JSON_VALUE),
    Column("progress", JSON_VALUE),
    **TABLE_OPTIONS,
)

attempts = Table(
    "gpu_cluster_job_attempt",
    metadata,
    Column("job", ROW_ID, ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    # -1 for a job that is no array.
    Column("element", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("state", String(20), nullable=False),
    Column("reason", String(50)),
    Column("ended_at", UtcTime),
    Column("gpu_seconds", Double),
    Column("used_gpu_seconds", Double),
    **TABLE_OPTIONS,
)

sources = Table(
    "gpu_cluster_job_source",
    metadata,
    Column("name", String(300), primary_key=True),
    # How far it was read.
    Column("place", JSON_VALUE),
    # The process that reads it, and until when others leave it to that one.
    Column("reader", String(100)),
    Column("read_until", UtcTime),
    **TABLE_OPTIONS,
)
