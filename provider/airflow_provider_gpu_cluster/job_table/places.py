"""How far each source was read, which process reads, and when somebody last looked at the list."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from airflow_provider_gpu_cluster.job_table.tables import sources

AIRFLOW = "airflow"
VIEWERS = "viewers"
_LEDGER = "ledger:"


def ledger_of(conn_id: str) -> str:
    """Return the name of a cluster's ledger among the sources."""
    return _LEDGER + conn_id


def place_of(session: Session, name: str) -> dict[str, Any]:
    """Return how far a source was read; nothing if it never was."""
    return dict(session.scalar(select(sources.c.place).where(sources.c.name == name)) or {})


def keep_place(session: Session, name: str, place: dict[str, Any]) -> None:
    """Note how far a source was read."""
    _make(session, name)
    session.execute(update(sources).where(sources.c.name == name).values(place=place))


def take(session: Session, reader: str, for_s: float) -> bool:
    """
    Make a process the one that reads the sources, unless another is; return whether it is now. This commits.

    :param reader: name of the process.
    :param for_s: after how long without another call it is no longer, in seconds.
    """
    now = datetime.now(timezone.utc)
    of_now = session.execute(select(sources.c.reader, sources.c.read_until).where(sources.c.name == AIRFLOW)).first()
    if of_now is not None and of_now.reader not in (None, reader) and of_now.read_until > now:
        session.commit()
        return False
    _make(session, AIRFLOW)
    is_free = or_(sources.c.reader.is_(None), sources.c.reader == reader, sources.c.read_until <= now)
    taken: Any = session.execute(
        update(sources)
        .where(sources.c.name == AIRFLOW, is_free)
        .values(reader=reader, read_until=now + timedelta(seconds=for_s))
    )
    session.commit()
    return bool(taken.rowcount)


def give_up(session: Session, reader: str) -> None:
    """Let another process be the one that reads."""
    session.execute(
        update(sources)
        .where(sources.c.name == AIRFLOW, sources.c.reader == reader)
        .values(reader=None, read_until=None)
    )


def note_viewer(session: Session, until: datetime) -> None:
    """Note that somebody looks at the list, and probably will until then."""
    _make(session, VIEWERS)
    session.execute(update(sources).where(sources.c.name == VIEWERS).values(read_until=until))


def is_viewed(session: Session) -> bool:
    """Return whether somebody looks at the list."""
    until = session.scalar(select(sources.c.read_until).where(sources.c.name == VIEWERS))
    return until is not None and until > datetime.now(timezone.utc)


def _make(session: Session, name: str) -> None:
    if session.scalar(select(sources.c.name).where(sources.c.name == name)) is None:
        try:
            with session.begin_nested():
                session.execute(insert(sources).values(name=name))
        except IntegrityError:
            # Another process has been faster.
            pass
