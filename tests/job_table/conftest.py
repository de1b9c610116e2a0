"""The table in each database that Airflow supports: SQLite, PostgreSQL and MariaDB (which stands for MySQL as well)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy
from airflow import settings
from sqlalchemy.orm import Session, sessionmaker

from airflow_provider_gpu_cluster.job_table import tables
from airflow_provider_gpu_cluster.job_table.db_manager import GpuClusterDBManager
from tests.servers import databases


@pytest.fixture(
    scope="session",
    params=[
        "sqlite",
        # All tests of a server are left to one process, so that it is started once.
        pytest.param("postgresql", marks=[pytest.mark.heavy, pytest.mark.xdist_group("postgresql")]),
        pytest.param("mariadb", marks=[pytest.mark.heavy, pytest.mark.xdist_group("mariadb")]),
    ],
)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of an empty database, of each kind."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        yield f"sqlite:///{folder}/airflow.db"
    else:
        with getattr(databases, request.param)(folder) as url:
            yield url


@pytest.fixture
def airflow_database(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlalchemy.Engine]:
    """Make this database Airflow's own, for the length of a test. It has none of our tables."""
    engine = sqlalchemy.create_engine(url)
    monkeypatch.setattr(settings, "engine", engine)
    monkeypatch.setattr(settings, "SQL_ALCHEMY_CONN", url)
    maker = sessionmaker(engine, autoflush=False, expire_on_commit=False)
    for name in ("Session", "NonScopedSession"):
        monkeypatch.setattr(settings, name, maker)
    yield engine
    with engine.begin() as connection:
        tables.metadata.drop_all(connection)
        connection.exec_driver_sql(f"drop table if exists {tables.VERSION_TABLE}")
    engine.dispose()


@pytest.fixture
def session(airflow_database: sqlalchemy.Engine) -> Iterator[Session]:
    """Return a session of a database that was migrated."""
    with Session(airflow_database) as session:
        GpuClusterDBManager(session).initdb()
        session.commit()
        yield session
