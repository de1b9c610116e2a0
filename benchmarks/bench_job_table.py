"""What the list of all jobs takes with 100,000 rows, in each database: pages, filters, sorting, search, sums."""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped, unused-ignore]
import sqlalchemy
from airflow import settings
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from airflow_provider_gpu_cluster.job_table import queries, recording
from airflow_provider_gpu_cluster.job_table.db_manager import GpuClusterDBManager
from airflow_provider_gpu_cluster.job_table.facts import AttemptFacts, JobFacts, StandingFacts, TaskKey
from airflow_provider_gpu_cluster.job_table.queries import Selection
from airflow_provider_gpu_cluster.job_table.tables import details, jobs
from benchmarks.measure import line, timed
from tests.servers import databases

ROWS = 100_000
AT_ONCE = 2000
DAGS = 5000
RUNS = 5
MOST_S = 0.3
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def main() -> None:
    rows = int(sys.argv[1]) if sys.argv[1:] else ROWS
    for name in sys.argv[2:] or ("sqlite", "postgresql", "mariadb"):
        with tempfile.TemporaryDirectory() as folder, _database(name, Path(folder)) as engine:
            print(f"\n{name}", flush=True)
            with Session(engine) as session:
                GpuClusterDBManager(session).initdb()
                session.commit()
            chance = random.Random(7)
            for start in range(0, rows, AT_ONCE):
                _insert(engine, [_fact(n, chance) for n in range(start, min(start + AT_ONCE, rows))])
            facts = [_fact(n, chance) for n in range(rows, rows + 1000)]
            line("1,000 jobs more", [_written(facts)])
            line("the same told again", [_written(facts)])
            with engine.begin() as connection:
                connection.exec_driver_sql("analyze table gpu_cluster_job" if name == "mariadb" else "analyze")
            _measure(engine)


def _written(facts: list[JobFacts]) -> float:
    return timed(lambda: recording.write(facts))


def _measure(engine: sqlalchemy.Engine) -> None:
    all_dags = Selection({f"dag_{n}" for n in range(DAGS)})
    cases: dict[str, Any] = {
        "first page, newest first": (all_dags, "-submitted_at", 0),
        "page in the middle": (all_dags, "-submitted_at", ROWS // 2),
        "last page": (all_dags, "-submitted_at", ROWS - 50),
        "1,000 rows": (all_dags, "-submitted_at", 0, 1000),
        "of one DAG": (Selection({"dag_7"}), "-submitted_at", 0),
        "that run": (replace(all_dags, one_of={"state": ["RUNNING", "QUEUED"]}), "-submitted_at", 0),
        "of a user, failed, of a month": (
            replace(
                all_dags,
                one_of={"user": ["user_3"], "state": ["FAILED"]},
                since=NOON + timedelta(days=90),
                until=NOON + timedelta(days=120),
            ),
            "-submitted_at",
            0,
        ),
        "sorted by GPU-seconds": (all_dags, "-gpu_seconds", 0),
        "sorted by host": (all_dags, "host", 0),
        "sorted by DAG": (all_dags, "dag_id", 0),
        "search that finds few": (replace(all_dags, words="train-4711"), "-submitted_at", 0),
        "search that finds many": (replace(all_dags, words="gpu1 memory"), "-submitted_at", 0),
        "search that finds nothing": (replace(all_dags, words="nowhere"), "-submitted_at", 0),
    }
    slow = []
    for name, (selection, order_by, offset, *limit) in cases.items():
        look = partial(_look, engine, selection, order_by, limit[0] if limit else 50, offset)
        slow += [name] * (_measured(f"{name}, with its sums", look) > MOST_S)

    def choose() -> None:
        with Session(engine) as session:
            queries.choices_in(session, all_dags.dags)

    slow += ["choices"] * (_measured("what can be chosen", choose) > MOST_S)
    print(f"more than {MOST_S} s of processor time: {', '.join(slow) or 'nothing'}", flush=True)


def _look(engine: sqlalchemy.Engine, selection: Selection, order_by: str, limit: int, offset: int) -> None:
    with Session(engine) as session:
        queries.page_of(session, selection, order_by, limit, offset)
        queries.sums_of(session, selection)


def _measured(name: str, look: Callable[[], None]) -> float:
    """Print how long something takes, and return its processor time, which other programs here do not change."""
    look()
    began = _processor_s()
    times = [timed(look) for _ in range(RUNS)]
    processor_s = (_processor_s() - began) / RUNS
    line(f"{name}: {processor_s * 1000:.0f} ms of processor time", times)
    return processor_s


def _processor_s() -> float:
    """Return the processor time of this process and of the database's."""
    own = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (own, *own.children(recursive=True)))


def _insert(engine: sqlalchemy.Engine, facts: list[JobFacts]) -> None:
    """Insert rows at once, which would take minutes one after the other."""
    rows = [{**recording.new_row([fact]), "gpu_seconds": fact.attempts[0].gpu_seconds} for fact in facts]  # type: ignore[dict-item]
    with engine.begin() as connection:
        connection.execute(sqlalchemy.insert(jobs), rows)
        first = rows[0]["job_id"]
        key = connection.scalars(sqlalchemy.select(jobs.c.id).where(jobs.c.job_id == first)).one()
        shown = [{"job": key + n, **fact.shown} for n, fact in enumerate(facts)]
        connection.execute(sqlalchemy.insert(details), shown)


def _fact(n: int, chance: random.Random) -> JobFacts:
    submitted_at = NOON + timedelta(minutes=5 * n)
    state = "RUNNING" if n % 200 == 0 else chance.choice(["SUCCEEDED", "SUCCEEDED", "FAILED", "CANCELLED"])
    ended_at = None if state == "RUNNING" else submitted_at + timedelta(hours=1)
    gpus = chance.randrange(1, 9)
    dag_id = f"dag_{n % DAGS}"
    host = f"gpu{n % 40}.cluster.example.org"
    reason = "out_of_memory" if state == "FAILED" else None
    message = "its host ran out of memory: 63.9 GiB of 64 GiB" if reason else None
    used = chance.random() * gpus * 3600
    return JobFacts(
        f"cluster_{n % 5}",
        f"{dag_id}-train-{n}-20260101T120000-{n:08x}",
        TaskKey(dag_id, f"scheduled__{submitted_at.isoformat()}", "train", n % 3 - 1),
        True,
        submitted_at,
        {"engine": "host", "gpus": gpus, "user_name": f"user_{n % 50}", "owner": "lab", "gpu_type": "H100"},
        StandingFacts(1, state, reason, reason, message, host, submitted_at, ended_at),
        (AttemptFacts(-1, 1, state, reason, ended_at, used * 1.2, used),),
        {
            "request": {"entry_script": "train.py", "script_args": ["--epochs", "20"], "gpus": gpus, "cpus": 8},
            "progress": {"step": n, "total": 1000, "loss": chance.random(), "note": "x" * 200},
            "metrics": {f"metric_{m}": chance.random() for m in range(10)},
        },
    )


@contextlib.contextmanager
def _database(name: str, folder: Path) -> Iterator[sqlalchemy.Engine]:
    """Make a database Airflow's own."""
    where = (
        contextlib.nullcontext(f"sqlite:///{folder}/airflow.db")
        if name == "sqlite"
        else getattr(databases, name)(folder)
    )
    with where as url:
        engine = sqlalchemy.create_engine(url)
        settings.engine, settings.SQL_ALCHEMY_CONN = engine, url
        settings.NonScopedSession = sessionmaker(engine, autoflush=False, expire_on_commit=False)
        settings.Session = scoped_session(settings.NonScopedSession)
        try:
            yield engine
        finally:
            engine.dispose()


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"\nin {time.monotonic() - began:.0f} s")
