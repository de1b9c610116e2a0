"""Make the table of all jobs, and those beside it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_provider_gpu_cluster.job_table.column_types import JSON_VALUE, ROW_ID, TABLE_OPTIONS, UtcTime

revision = "0001_jobs"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "gpu_cluster_job",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("conn_id", sa.String(250), nullable=False),
        sa.Column("job_id", sa.String(100), nullable=False),
        sa.Column("dag_id", sa.String(250), nullable=False),
        sa.Column("run_id", sa.String(250), nullable=False),
        sa.Column("task_id", sa.String(250), nullable=False),
        sa.Column("map_index", sa.Integer, nullable=False, server_default="-1"),
        sa.Column("is_latest", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("is_launched", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("engine", sa.String(20)),
        sa.Column("element_count", sa.Integer),
        sa.Column("user_name", sa.String(250)),
        sa.Column("owner", sa.String(250)),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(50)),
        sa.Column("kind", sa.String(100)),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("gpus", sa.Integer),
        sa.Column("gpu_type", sa.String(250)),
        sa.Column("host", sa.String(250)),
        sa.Column("submitted_at", UtcTime, nullable=False),
        sa.Column("started_at", UtcTime),
        sa.Column("ended_at", UtcTime),
        sa.Column("gpu_seconds", sa.Double),
        sa.Column("used_gpu_seconds", sa.Double),
        sa.Column("message", sa.Text),
        sa.Column("job_dir", sa.Text),
        sa.Column("search_text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="gpu_cluster_job_pkey"),
        sa.UniqueConstraint("conn_id", "job_id", name="gpu_cluster_job_conn_id_job_id_uq"),
        **TABLE_OPTIONS,
    )
    op.create_index("idx_gpu_cluster_job_submitted_at_id", "gpu_cluster_job", ["submitted_at", "id"])
    op.create_index("idx_gpu_cluster_job_dag_id_run_id_task_id", "gpu_cluster_job", ["dag_id", "run_id", "task_id"])
    op.create_index("idx_gpu_cluster_job_state_submitted_at", "gpu_cluster_job", ["state", "submitted_at"])
    op.create_table(
        "gpu_cluster_job_detail",
        sa.Column("job", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("request", JSON_VALUE),
        sa.Column("metrics", JSON_VALUE),
        sa.Column("progress", JSON_VALUE),
        sa.PrimaryKeyConstraint("job", name="gpu_cluster_job_detail_pkey"),
        _of_a_job("gpu_cluster_job_detail_job_fkey"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "gpu_cluster_job_attempt",
        sa.Column("job", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("element", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(50)),
        sa.Column("ended_at", UtcTime),
        sa.Column("gpu_seconds", sa.Double),
        sa.Column("used_gpu_seconds", sa.Double),
        sa.PrimaryKeyConstraint("job", "element", "attempt", name="gpu_cluster_job_attempt_pkey"),
        _of_a_job("gpu_cluster_job_attempt_job_fkey"),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "gpu_cluster_job_source",
        sa.Column("name", sa.String(300), nullable=False),
        sa.Column("place", JSON_VALUE),
        sa.Column("reader", sa.String(100)),
        sa.Column("read_until", UtcTime),
        sa.PrimaryKeyConstraint("name", name="gpu_cluster_job_source_pkey"),
        **TABLE_OPTIONS,
    )


def downgrade() -> None:
    """Remove the tables, with all that they know."""
    for name in ("source", "attempt", "detail"):
        op.drop_table(f"gpu_cluster_job_{name}")
    op.drop_table("gpu_cluster_job")


def _of_a_job(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["job"], ["gpu_cluster_job.id"], name=name, ondelete="CASCADE")
