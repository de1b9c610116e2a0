"""Runs the migrations; alembic executes this file."""

from __future__ import annotations

import contextlib
from typing import Any

from airflow import settings
from alembic import context

from airflow_provider_gpu_cluster.job_table import tables


def is_ours(_: Any, name: str | None, kind: str, *args: Any) -> bool:
    """Return whether something in the database belongs to these migrations; Airflow's own tables are beside it."""
    return kind != "table" or name in tables.metadata.tables


def migrate() -> None:
    """Run the migrations, or print their SQL."""
    options: dict[str, Any] = {
        "target_metadata": tables.metadata,
        "version_table": tables.VERSION_TABLE,
        "include_object": is_ours,
        "compare_type": True,
        "render_as_batch": True,
    }
    with contextlib.ExitStack() as stack:
        if context.is_offline_mode():
            context.configure(url=settings.SQL_ALCHEMY_CONN, literal_binds=True, **options)
        else:
            given = context.config.attributes.get("connection")
            connection = given or stack.enter_context(settings.get_engine().connect())
            context.configure(connection=connection, transaction_per_migration=True, **options)
        with context.begin_transaction():
            context.run_migrations()


migrate()
