"""
What a choice among clusters adds to one submit, and what a cluster that is silent adds to that.

Each cluster has a stock sshd of its own, and one GPU; each try connects anew, as each task does.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import socket
import statistics
from collections.abc import Iterator
from typing import Any, cast

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import JobToAppraise
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.script import render_run_script
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.pools.asking import offers_of
from airflow_provider_gpu_cluster.pools.choice import choose
from airflow_provider_gpu_cluster.pools.launching import placing_of
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.offer import Member
from airflow_provider_gpu_cluster.pools.pool import Pool
from airflow_provider_gpu_cluster.pools.stores import KeyedStore
from airflow_provider_gpu_cluster.pools.table import table_of
from benchmarks.measure import CONN_ID, bench, line, paired
from tests.harness.jobs import record, submit

RUNS = 15
FEW, MANY = 5, 20
_numbers = itertools.count()


def main() -> None:
    logging.getLogger("bench").setLevel(logging.WARNING)
    with contextlib.ExitStack() as clusters:
        pool = clusters.enter_context(_pool(FEW))
        one, chosen, placed = paired(
            RUNS, lambda: _submit_to_one(pool), lambda: _choose_and_submit(pool), lambda: _place(pool)
        )
        line("one submit, connection included", one)
        line(f"the same after a choice among {FEW} clusters", chosen)
        line(f"the same, claimed there and fenced at the {FEW - 1} others", placed)
        for what, times in (("the choice", chosen), ("choice, claim and fences", placed)):
            added_s = statistics.median(mine - other for mine, other in zip(times, one, strict=True))
            print(f"{what}: {added_s:.2f} s over one submit (target: under 1 s)", flush=True)
    with _pool(MANY, silent=1) as pool:
        (times,) = paired(5, lambda: _choose(pool, _members(), _job()))
        line(f"choice among {MANY} clusters, one of them silent", times)
        print(f"{max(times):.2f} s at most (target: under 5 s)")
        (offers,) = offers_of(pool, [_job()], open_member=_members())
        print(table_of(choose(offers)))


@contextlib.contextmanager
def _pool(count: int, silent: int = 0) -> Iterator[Pool]:
    """Start clusters, on which the program is installed, and things that listen and never say a word."""
    with contextlib.ExitStack() as started:
        names = [f"gpu{number:02}" for number in range(count)]
        for number, name in enumerate(names):
            if number < count - silent:
                own = started.enter_context(bench(gpus=1))
                given = json.loads(own.connections()[f"AIRFLOW_CONN_{CONN_ID.upper()}"])
                os.environ[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps(given)
                with GpuClusterHook(name) as hook:
                    hook.cluster.capacity()
            else:
                listener = started.enter_context(socket.create_server(("127.0.0.1", 0)))
                os.environ[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps({**given, "port": listener.getsockname()[1]})
        yield Pool(tuple(Member(name) for name in names))


def _members() -> Members[Cluster]:
    return Members(lambda conn_id: GpuClusterHook(conn_id).cluster)


def _job() -> JobToAppraise:
    return {"job_id": f"bench-{next(_numbers)}", "spec": JobSpec(command="true").to_json(), "inputs": []}


def _submit_to_one(pool: Pool) -> None:
    members = _members()
    submit(members(pool.conn_ids[0]), "true", job_id=f"bench-{next(_numbers)}")
    members.close()


def _choose_and_submit(pool: Pool) -> None:
    members, job = _members(), _job()
    submit(members(_choose(pool, members, job)), "true", job_id=job["job_id"])
    members.close()


def _choose(pool: Pool, members: Members[Cluster], job: JobToAppraise) -> str:
    (offers,) = offers_of(pool, [job], open_member=members)
    choice = choose(offers)
    table_of(choice)
    return choice.offer.conn_id


def _place(pool: Pool) -> None:
    """Do all that a task does: choose, claim, fence and launch, with a store in memory."""
    members, stored = _members(), dict[str, Any]()
    spec = JobSpec(command="true", recover={})
    placing = placing_of(
        pool,
        members,
        job_id=f"bench-{next(_numbers)}",
        sources=(),
        arguments={
            "spec": spec,
            "env": {},
            "run_script": render_run_script(spec),
            "request_key": "try-1",
            "generation": "0",
            "record": record(),
        },
        store=KeyedStore(stored.get, stored.__setitem__, is_first=True),
        log=cast("Any", logging.getLogger("bench")),
    )
    placing.begin()
    members.close()


if __name__ == "__main__":
    main()
