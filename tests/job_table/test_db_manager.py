"""The migrations of the table of jobs, in real databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy
from airflow import settings
from airflow.utils.db_manager import RunDBManager
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table import tables
from airflow_provider_gpu_cluster.job_table.db_manager import GpuClusterDBManager
from airflow_provider_gpu_cluster.job_table.migrated import NEWER, NOT_MIGRATED, OLDER, what_is_missing

# Airflow leaves the connection with which it has dropped tables to be collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
OURS = {*tables.metadata.tables, tables.VERSION_TABLE}


def there(engine: sqlalchemy.Engine) -> set[str]:
    return set(sqlalchemy.inspect(engine).get_table_names()) & OURS


def test_airflow_finds_the_manager_and_accepts_it() -> None:
    managers: Any = RunDBManager()
    assert GpuClusterDBManager in managers._managers
    managers.validate()
    assert managers.get_required_table_names() >= OURS


@pytest.mark.parametrize("use_migration_files", [False, True])
def test_tables_come_and_go(airflow_database: sqlalchemy.Engine, use_migration_files: bool) -> None:
    with Session(airflow_database) as session:
        manager = GpuClusterDBManager(session)
        assert not manager.check_migration()
        assert what_is_missing(session) == NOT_MIGRATED
        manager.initdb(use_migration_files=use_migration_files)
        session.commit()
        assert manager.check_migration()
        assert what_is_missing(session) is None
        assert there(airflow_database) == OURS
        manager.upgradedb()
        session.commit()
        manager.downgrade("base")
        assert there(airflow_database) == {tables.VERSION_TABLE}
        assert what_is_missing(session) == NOT_MIGRATED
        session.commit()
        manager.upgradedb()
        session.commit()
        manager.resetdb()
        session.commit()
        assert manager.check_migration()
        session.commit()
        manager.resetdb(skip_init=True)
        assert not there(airflow_database)


def test_the_migrations_make_what_the_tables_say(airflow_database: sqlalchemy.Engine) -> None:
    with Session(airflow_database) as session:
        manager = GpuClusterDBManager(session)
        manager.initdb(use_migration_files=True)
        session.commit()
        assert manager.get_script_object().get_heads() == [tables.REVISION]
        context = MigrationContext.configure(
            session.connection(),
            opts={"include_object": lambda item, name, kind, *_: kind != "table" or name in tables.metadata.tables},
        )
        assert compare_metadata(context, tables.metadata) == []


def test_sql_is_printed(airflow_database: sqlalchemy.Engine, capsys: pytest.CaptureFixture[str]) -> None:
    with Session(airflow_database) as session:
        manager = GpuClusterDBManager(session)
        if settings.get_engine().dialect.name == "sqlite":
            with pytest.raises(SystemExit, match="Offline"):
                manager.upgradedb(show_sql_only=True)
            return
        manager.upgradedb(show_sql_only=True)
        assert "CREATE TABLE gpu_cluster_job_detail" in capsys.readouterr().out
        manager.downgrade("base", show_sql_only=True)
        assert "DROP TABLE gpu_cluster_job" in capsys.readouterr().out
        assert not there(airflow_database)


@pytest.mark.parametrize("revision", ["0009_of_a_later_version", "0000_of_an_earlier_one"])
def test_tables_of_another_version_are_told(session: Session, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "airflow_provider_gpu_cluster.job_table.migrated.REVISIONS", ("0000_of_an_earlier_one", tables.REVISION)
    )
    session.execute(sqlalchemy.text(f"update {tables.VERSION_TABLE} set version_num = '{revision}'"))
    is_newer = revision.startswith("0009")
    expected = NEWER.format(revision=revision, needed=tables.REVISION) if is_newer else OLDER
    assert what_is_missing(session) == expected
