"""Airflow's database of this process."""

from __future__ import annotations

import fcntl
import sqlite3
from contextlib import closing
from pathlib import Path


def make_database(folder: Path | None = None) -> Path:
    """
    Make it, once: making it again takes seconds, and closes the sessions of all threads.

    :param folder: of a test. What the first worker of a test run has made, the others copy.
    :return: a file with the database as it was when it was made.
    """
    # Airflow looks for its configuration when it is imported.
    from airflow import settings
    from airflow.utils.db import initdb

    assert settings.engine is not None
    database = Path(str(settings.engine.url.database))
    empty = database.with_name("empty.db")
    if empty.exists():
        return empty
    shared = None if folder is None else _shared_by_workers(folder)
    if shared is None:
        initdb()
    else:
        _make_or_copy(database, shared)
    _copy(database, empty)
    return empty


def _make_or_copy(database: Path, shared: Path) -> None:
    from airflow.utils.db import initdb

    made = shared / "airflow.db"
    with (shared / "airflow.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            _copy(made, database)
        else:
            initdb()
            _copy(database, made)


def _copy(database: Path, to: Path) -> None:
    with closing(sqlite3.connect(database)) as origin, closing(sqlite3.connect(to)) as copy:
        origin.backup(copy)


def _shared_by_workers(folder: Path) -> Path | None:
    """Return the folder that has those of all workers, of which one has this; None without pytest-xdist."""
    return next((parent.parent for parent in folder.parents if parent.name.startswith("popen-gw")), None)
