"""One turn of filling the table: what has been launched, which clusters to ask, and what they have answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session
from sqlalchemy import delete, or_, select

from airflow_provider_gpu_cluster import options
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.job_table import places
from airflow_provider_gpu_cluster.job_table.facts import GONE
from airflow_provider_gpu_cluster.job_table.launches import (
    RunsSeen,
    all_launches,
    launches_by_runs,
    new_launches,
)
from airflow_provider_gpu_cluster.job_table.ledger_facts import facts_of_line, facts_of_standing
from airflow_provider_gpu_cluster.job_table.migrated import what_is_missing
from airflow_provider_gpu_cluster.job_table.recording import AT_ONCE, write
from airflow_provider_gpu_cluster.job_table.tables import attempts, details, jobs

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.ledger_reading import ReadLedgerReply, ReadLedgerRequest

LEASE_S = 60.0
# How often to look at the notes of all runs, and not only of those that go on.
_ALL_EVERY = timedelta(minutes=10)
_MOST_UNFINISHED = 5000
_MOST_ASKED = 500
_MOST_DELETED = 5000
_BEGIN = {"file": "", "offset": 0}


@dataclass(frozen=True)
class ClusterToAsk:
    """
    A cluster whose jobs go on.

    :param job_ids: those that have not ended, as far as the table knows, the newest first.
    """

    conn_id: str
    job_ids: tuple[str, ...]


class Filling:
    """
    Fills the table, in one process at a time.

    :param reader: name of this process, for the others.
    """

    def __init__(self, reader: str) -> None:
        self._reader = reader
        self._seen = RunsSeen()

    def is_mine(self) -> bool:
        """Return whether the table is there, and this process is the one that fills it."""
        with create_session(scoped=False) as session:
            if what_is_missing(session) is not None or not places.take(session, self._reader, LEASE_S):
                self._seen = RunsSeen()
                return False
            return True

    def read_airflow(self) -> None:
        """Read what launches have left in Airflow since the last turn."""
        now = datetime.now(timezone.utc)
        with create_session(scoped=False) as session:
            place = places.place_of(session, places.AIRFLOW)
        if not place.get("is_imported"):
            # What is launched meanwhile, the turns after it see.
            place = {"read_at": now.isoformat(), "read_all_at": now.isoformat(), **place}
            self._import(place)
        read_at, all_at = (datetime.fromisoformat(place[name]) for name in ("read_at", "read_all_at"))
        is_all = self._seen.newest is None or all_at + _ALL_EVERY <= now
        with create_session(scoped=False) as session:
            facts = new_launches(session, self._seen, read_at)
            if is_all:
                facts = all_launches(session, all_at)
        write(facts)
        place["read_at"] = now.isoformat()
        if is_all:
            place["read_all_at"] = now.isoformat()
        _keep(places.AIRFLOW, place)

    def _import(self, place: dict[str, Any]) -> None:
        """Read what all runs have left, also before there were notes of launches, some runs after the others."""
        for after, facts in launches_by_runs(place.get("imported", 0)):
            write(facts)
            place["imported"] = after
            _keep(places.AIRFLOW, place)
            # It may take longer than others wait.
            self.is_mine()
        place["is_imported"] = True

    def clusters(self) -> tuple[bool, list[ClusterToAsk]]:
        """Return whether somebody looks at the list, and the clusters whose jobs have not ended."""
        unfinished = or_(
            jobs.c.state.in_((protocol.QUEUED, protocol.RUNNING)),
            (jobs.c.state == protocol.UNKNOWN) & or_(jobs.c.message.is_(None), jobs.c.message != GONE),
        )
        found: dict[str, list[str]] = defaultdict(list)
        with create_session(scoped=False) as session:
            is_viewed = places.is_viewed(session)
            query = select(jobs.c.conn_id, jobs.c.job_id).where(unfinished).order_by(jobs.c.submitted_at.desc())
            for conn_id, job_id in session.execute(query.limit(_MOST_UNFINISHED)):
                found[conn_id].append(job_id)
        return is_viewed, [ClusterToAsk(conn_id, tuple(job_ids)) for conn_id, job_ids in found.items()]

    def forget_old(self) -> None:
        """Delete rows that are older than ``[gpu_cluster] keep_jobs_days`` says, some of them at a time."""
        days = options.keep_jobs_days()
        if days is None:
            return
        too_old = jobs.c.submitted_at < datetime.now(timezone.utc) - timedelta(days=days)
        with create_session(scoped=False) as session:
            ids = list(
                session.scalars(select(jobs.c.id).where(too_old).order_by(jobs.c.submitted_at).limit(_MOST_DELETED))
            )
            for start in range(0, len(ids), AT_ONCE):
                some = ids[start : start + AT_ONCE]
                session.execute(delete(attempts).where(attempts.c.job.in_(some)))
                session.execute(delete(details).where(details.c.job.in_(some)))
                session.execute(delete(jobs).where(jobs.c.id.in_(some)))

    def give_up(self) -> None:
        """Let another process fill the table, as this one ends."""
        with create_session(scoped=False) as session:
            if what_is_missing(session) is None:
                places.give_up(session, self._reader)


def request_to(cluster: ClusterToAsk, *, from_begin: bool = False) -> ReadLedgerRequest:
    """
    Return what to ask a cluster next.

    :param from_begin: read its ledger anew.
    """
    with create_session(scoped=False) as session:
        place = places.place_of(session, places.ledger_of(cluster.conn_id))
    begin: Any = _BEGIN if from_begin else place or _BEGIN
    return {"place": begin, "jobs": list(cluster.job_ids[:_MOST_ASKED])}


def write_answer(conn_id: str, answer: ReadLedgerReply) -> None:
    """Write what a cluster has answered, and how far its ledger was read."""
    lines = [facts_of_line(conn_id, line) for line in answer["lines"]]
    # Whether a cluster has forgotten a job can be said when its ledger has nothing more to tell.
    told = [facts_of_standing(conn_id, one) for one in answer["jobs"]] if answer["is_all"] else []
    write([one for one in (*lines, *told) if one is not None])
    # After that, as what is written twice does no harm, and what is never written would be missing.
    _keep(places.ledger_of(conn_id), dict(answer["place"]))


def _keep(name: str, place: Mapping[str, Any]) -> None:
    with create_session(scoped=False) as session:
        places.keep_place(session, name, dict(place))
