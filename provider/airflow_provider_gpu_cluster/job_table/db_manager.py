"""What ``airflow db migrate`` and its kin do with the tables of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow import settings
from airflow.utils.db_manager import BaseDBManager

from airflow_provider_gpu_cluster.job_table import tables

_FOLDER = Path(__file__).parent


class GpuClusterDBManager(BaseDBManager):
    """Makes, upgrades and removes the tables in which Airflow keeps GPU jobs."""

    metadata = tables.metadata
    version_table_name = tables.VERSION_TABLE
    migration_dir = (_FOLDER / "migrations").as_posix()
    alembic_file = (_FOLDER / "alembic.ini").as_posix()
    supports_table_dropping = True
    revision_heads_map = {"0.1.0": tables.REVISION}

    def upgradedb(
        self,
        to_revision: str | None = None,
        from_revision: str | None = None,
        show_sql_only: bool = False,
        use_migration_files: bool = False,
    ) -> None:
        """Bring the tables to a revision, or print the SQL for it."""
        if show_sql_only:
            start = from_revision or self.get_current_revision() or "base"
            self._print_sql("upgrade", f"{start}:{to_revision or 'head'}")
        elif from_revision:
            raise ValueError("from_revision only says where SQL starts that is printed (show_sql_only)")
        else:
            super().upgradedb(to_revision, use_migration_files=use_migration_files)  # type: ignore[no-untyped-call]

    def downgrade(self, to_revision: str, from_revision: str | None = None, show_sql_only: bool = False) -> None:
        """Bring the tables back to a revision (``base`` removes them), or print the SQL for it."""
        if show_sql_only:
            self._print_sql("downgrade", f"{from_revision or self.get_current_revision() or 'head'}:{to_revision}")
            return
        if from_revision:
            raise ValueError("from_revision only says where SQL starts that is printed (show_sql_only)")
        from alembic import command

        # What the session has read of the tables keeps them from being changed.
        self.session.commit()
        command.downgrade(self.get_alembic_config(), to_revision)

    def _print_sql(self, name: str, revisions: str) -> None:
        from alembic import command

        if settings.get_engine().dialect.name == "sqlite":
            raise SystemExit("Offline migration not supported for SQLite.")
        config: Any = self.get_alembic_config()
        getattr(command, name)(config, revisions, sql=True)
