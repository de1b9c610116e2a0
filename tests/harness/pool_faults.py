"""
Faults between the tries of a task and the clusters of its pool, in a random order that a seed repeats.

Everything is real: an OpenSSH server, a root for each cluster with its own program, queue and GPUs, a proxy before each
that cuts and freezes connections, and workers in processes of their own, which place a job, wait for it and renew its
placement as tasks do. Only the clocks of some clusters are set, by a line in their copy of the program, and the margin
for clocks is shorter than elsewhere, so that a failover takes seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import paramiko
import structlog

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.jobs.script import render_run_script
from airflow_provider_gpu_cluster.jobs.spec import JobSpec
from airflow_provider_gpu_cluster.jobs.submission import LaunchArguments
from airflow_provider_gpu_cluster.pools import holding, keeping
from airflow_provider_gpu_cluster.pools.keeping import JobWentElsewhere, Keeper
from airflow_provider_gpu_cluster.pools.launching import placing_of
from airflow_provider_gpu_cluster.pools.members import Members
from airflow_provider_gpu_cluster.pools.offer import Member
from airflow_provider_gpu_cluster.pools.placing import Placing
from airflow_provider_gpu_cluster.pools.pool import Pool
from airflow_provider_gpu_cluster.pools.stores import PLACEMENT_KEY, KeyedStore
from tests.harness.jobs import record, submit
from tests.harness.leftovers import processes_under
from tests.harness.own_log import begin_own_log
from tests.harness.unpacked_program import provide_unpacked
from tests.servers.proxy import CutProxy
from tests.servers.sshd import RealSshd

# By how much the clock of each cluster is ahead, in seconds.
CLOCKS_S = (0.0, 600.0, -600.0)
# Longer than a launch takes on a busy machine: what is launched too late is launched anew.
FAILOVER_S = 8.0
ORPHAN_S = 6.0
GRACE_S = 1.0
MARGIN_S = 2.0
# How long a round may take after its last fault.
_PATIENCE_S = 300.0

Connect = Callable[[int], paramiko.SSHClient]


@dataclass
class Proof:
    """
    What a round has shown.

    :param twice: whether the user's code ran twice at one time.
    :param lost: whether it never got to its end.
    :param again: how often it had got to its end unseen, on a cluster that was out of reach until its job was surely
        gone from there, and then ran again elsewhere.
    """

    faults: Counter[str] = field(default_factory=Counter)
    twice: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    again: int = 0

    def add(self, other: Proof) -> None:
        """Add what another round has shown."""
        self.faults += other.faults
        self.twice += other.twice
        self.lost += other.lost
        self.again += other.again


@dataclass(frozen=True)
class Fire:
    """
    How faults happen in a round.

    :param pause_s: the longest time from one fault of a cluster to its next.
    :param for_s: how long they go on, and ``kept_for_s`` for a job that may fail over.
    :param kept: how many of the jobs may fail over, from 0 to 1.
    :param failovers: how many of these lose their cluster for long, and have no other fault.
    :param spared: how many of the clusters have none.
    :param freezes: whether connections freeze as well, each of which costs everybody some seconds.
    """

    pause_s: float = 1.2
    for_s: float = 4.0
    kept_for_s: float = 9.0
    kept: float = 0.35
    failovers: float = 0.5
    spared: float = 0.25
    freezes: bool = True


class PoolUnderFire:
    """
    A pool of clusters to which faults happen.

    :param folder: an empty one.
    :param connect: opens an SSH connection to a port of this machine.
    """

    def __init__(self, folder: Path, sshd: RealSshd, connect: Connect) -> None:
        self._folder = folder
        self._connect = connect
        self._port = sshd.port
        self.proxies = {f"gpu0{number}": CutProxy((sshd.host, sshd.port)) for number in range(1, len(CLOCKS_S) + 1)}
        self.roots = {name: folder / name / "ml-jobs" for name in self.proxies}
        for root, ahead_s in zip(self.roots.values(), CLOCKS_S, strict=True):
            _provide_program(root, ahead_s)
        self._store = folder / "store"
        self._store.mkdir()
        self._runs = folder / "runs"
        self._runs.mkdir()

    def close(self) -> None:
        """Cut all connections."""
        for proxy in self.proxies.values():
            proxy.close()

    def settings(self, name: str) -> ClusterSettings:
        root = self.roots[name]
        return ClusterSettings(
            conn_id=name,
            name=name,
            root_dir=str(root),
            lease_dir=str(root.parent / "leases"),
            virtual_gpus=1,
        )

    def round(self, seed: int, *, fire: Fire | None = None) -> Proof:
        """Launch one job while faults happen, let its tries go on until it has ended, and prove what has run."""
        return _Round(self, seed, fire or Fire()).run()

    # -- what a worker does, in a process of its own

    def cluster(self, name: str) -> Cluster:
        return Cluster(self.settings(name), lambda: self._connect(self.proxies[name].port), retry_for_s=1.0)

    def direct(self, name: str) -> Cluster:
        """Return a cluster that no fault keeps out of reach."""
        return Cluster(self.settings(name), lambda: self._connect(self._port))

    def work(self, plan: _Plan) -> None:
        """Be one try of the task: place the job, and wait for it."""
        members = Members(self.cluster)
        store = KeyedStore(_get_from(self._store / plan.job_id), _Put(self._store / plan.job_id, plan), is_first=True)
        spec = JobSpec(
            command=plan.command,
            gpus=1,
            grace_s=GRACE_S,
            recover={},
            orphan_timeout_s=ORPHAN_S if plan.is_kept else None,
        )
        arguments: LaunchArguments = {
            "spec": spec,
            "env": {},
            "run_script": render_run_script(spec),
            "request_key": plan.key,
            "generation": "0",
            "record": record(),
        }
        failover_s = FAILOVER_S if plan.is_kept else None

        def placing() -> Placing[Cluster]:
            return placing_of(
                Pool(tuple(Member(name) for name in plan.order), policy="in_order"),
                members,
                job_id=plan.job_id,
                sources=[],
                arguments=arguments,
                store=store,
                log=structlog.get_logger(),
                failover_after_s=failover_s,
            )

        _, noted = placing().begin()
        if not plan.waits:
            return
        keeper = Keeper(
            noted,
            store,
            open_member=members,
            place_again=lambda: placing().begin(),
            failover_after_s=failover_s,
            by="a try",
            log=structlog.get_logger(),
        )
        while True:
            here = cast(str, keeper.record.conn_id)
            with contextlib.suppress(JobWentElsewhere):
                try:
                    (status,) = members(here).statuses([plan.job_id])
                except GpuClusterConnectionError:
                    if keeper.is_due(None, is_out_of_reach=True):
                        keeper.out_of_reach()
                else:
                    if keeper.is_due(status, is_out_of_reach=False):
                        keeper.in_contact(members(here), status)
                    if status.final and not status.is_elsewhere:
                        return
            time.sleep(0.2)


@dataclass(frozen=True)
class _Plan:
    """
    What one try does.

    :param order: the clusters, in the order in which it prefers them.
    :param waits: whether it waits for the end.
    :param is_kept: whether it renews the placement, and may fail over.
    :param dies_at: at which write to the store it is killed, and whether before or after that; 0 for never.
    """

    job_id: str
    key: str
    command: str
    order: tuple[str, ...]
    waits: bool
    is_kept: bool
    dies_at: int = 0
    dies_before: bool = False


class _Put:
    """Writes to the store of a task, and dies when its plan says so."""

    def __init__(self, folder: Path, plan: _Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._count = 0

    def __call__(self, key: str, value: Any) -> None:
        self._count += 1
        is_now = self._count == self._plan.dies_at
        if is_now and self._plan.dies_before:
            os.kill(os.getpid(), signal.SIGKILL)
        self._folder.mkdir(exist_ok=True)
        draft = self._folder / f".{os.getpid()}.{threading.get_ident()}"
        draft.write_text(json.dumps(value))
        draft.rename(self._folder / key)
        if is_now:
            os.kill(os.getpid(), signal.SIGKILL)


def _get_from(folder: Path) -> Callable[[str], Any]:
    """Return what reads the store of a task."""

    def get(key: str) -> Any:
        try:
            return json.loads((folder / key).read_text())
        except FileNotFoundError:
            return None

    return get


class _Round:
    """One job, and the faults that happen to it."""

    def __init__(self, pool: PoolUnderFire, seed: int, fire: Fire) -> None:
        self._pool = pool
        self._fire = fire
        self._random = random.Random(seed)
        self._proof = Proof()
        self._job_id = f"job-{seed}"
        self._runs = pool._runs / self._job_id
        self._told = self._runs.with_suffix(".told")
        self._runs_until_told = False
        self._is_kept = self._random.random() < fire.kept
        self._tries = 0
        self._workers: list[Any] = []
        self._end = threading.Event()

    def run(self) -> Proof:
        chance = self._random
        order = list(self._pool.proxies)
        chance.shuffle(order)
        if self._is_kept and chance.random() < self._fire.failovers:
            self._partition(order)
        else:
            self._fires(order)
        for proxy in self._pool.proxies.values():
            proxy.refusing, proxy.delay_s = False, 0.0
            proxy.cut_now()
        self._finish(order)
        self._prove()
        return self._proof

    def _fires(self, order: list[str]) -> None:
        """Let faults happen to all that take part."""
        chance = self._random
        if chance.random() < 0.3:
            # It waits for a while where it would go first.
            with self._pool.direct(order[0]) as cluster:
                submit(cluster, f"sleep {chance.uniform(0.5, 3):.2f}", job_id=f"{self._job_id}-before")
        troubles = [threading.Thread(target=self._trouble, args=(name, chance.random())) for name in order]
        for thread in troubles:
            thread.start()
        for _ in range(chance.choice((1, 1, 2, 2, 3))):
            self._start_worker(order)
        if len(self._workers) > 1:
            self._note("another worker at the same time", len(self._workers) - 1)
        self._kill_some()
        self._end.set()
        for thread in troubles:
            thread.join()

    def _partition(self, order: list[str]) -> None:
        """Cut off the cluster on which the job waits or runs, and bring it back before or after the failover."""
        chance = self._random
        first, waits_there = order[0], chance.random() < 0.5
        if waits_there:
            for name in order:
                with self._pool.direct(name) as cluster:
                    seconds = 0.1 if name != first else chance.uniform(4, 9)
                    submit(cluster, f"sleep {seconds:.2f}", job_id=f"{self._job_id}-before-{name}")
        self._runs_until_told = True
        worker = self._start_worker(order, waits=True, dies=False)
        if not self._await(lambda: self._where() is not None, 30.0):
            return
        if not waits_there:
            self._await(lambda: bool(self._begun()), 20.0)
        here = cast(str, self._where())
        self._pool.proxies[here].refusing = True
        self._pool.proxies[here].cut_now()
        if chance.random() < 0.4:
            worker.kill()
            self._note("worker killed during a partition")
        tries = threading.Thread(target=self._try_again, args=(order,))
        tries.start()
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0.0, 20.0))
            self._note("partition, and back before the failover or about then")
        elif self._await(lambda: self._where() not in (None, here), 120.0):
            self._note("partition, and back after the failover")
            time.sleep(chance.uniform(0.0, 3.0))
        self._pool.proxies[here].refusing = False
        time.sleep(chance.uniform(0.0, 3.0))
        self._told.touch()
        self._end.set()
        tries.join()

    def _try_again(self, order: list[str]) -> None:
        """Let one try follow the other, as long as this goes on."""
        while not self._end.wait(0.5):
            if all(worker.exitcode is not None for worker in self._workers):
                self._start_worker(order, waits=True, dies=False)

    def _await(self, is_there: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not is_there():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _where(self) -> str | None:
        """Return the cluster on which the job was launched, by what its task remembers."""
        noted = _read(self._pool._store / self._job_id, "")
        return noted.get("conn_id") if noted.get("stage") == "launched" else None

    def _begun(self) -> list[str]:
        return self._runs.read_text().splitlines() if self._runs.exists() else []

    def _note(self, fault: str, times: int = 1) -> None:
        self._proof.faults[fault] += times

    # -- workers

    def _start_worker(self, order: list[str], *, waits: bool | None = None, dies: bool = True) -> Any:
        chance = self._random
        self._tries += 1
        own = order if chance.random() < 0.6 else chance.sample(order, len(order))
        dies_at = chance.randrange(1, 6) if dies and chance.random() < 0.35 else 0
        plan = _Plan(
            self._job_id,
            f"try-{self._tries}",
            f'echo "begin $JOB_DIR $ATTEMPT $(date +%s.%N)" >> {self._runs}; {self._body(chance)}; '
            f'echo "end $JOB_DIR $ATTEMPT $(date +%s.%N)" >> {self._runs}',
            tuple(own),
            chance.random() < 0.5 if waits is None else waits,
            self._is_kept,
            dies_at,
            chance.random() < 0.5,
        )
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=_be_worker, args=(self._pool, plan), daemon=True)
        worker.start()
        if dies_at:
            worker.dies_at = dies_at  # type: ignore[attr-defined]
        self._workers.append(worker)
        return worker

    def _body(self, chance: random.Random) -> str:
        if self._runs_until_told:
            return f"for second in $(seq 600); do if [ -e {self._told} ]; then break; fi; sleep 0.1; done"
        return f"sleep {chance.uniform(0.1, 1.0):.2f}"

    def _kill_some(self) -> None:
        """Kill workers at random moments, or wait for a while."""
        chance = self._random
        for worker in self._workers:
            if chance.random() < 0.4:
                worker.join(chance.uniform(0.05, 2.0))
                if worker.exitcode is None:
                    worker.kill()
                    self._note("worker killed at any moment")
        deadline = time.monotonic() + (self._fire.kept_for_s if self._is_kept else self._fire.for_s)
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        for worker in self._workers:
            if worker.exitcode == -signal.SIGKILL and hasattr(worker, "dies_at"):
                self._note("worker killed at a write to its store")

    def _finish(self, order: list[str]) -> None:
        """Let tries follow each other, as Airflow's do, until the job has ended well."""
        for worker in self._workers:
            if worker.exitcode is None and self._random.random() < 0.5:
                worker.kill()
                self._note("worker killed while it waits")
        deadline = time.monotonic() + _PATIENCE_S
        while not self._ends("SUCCEEDED") and time.monotonic() < deadline:
            worker = self._start_worker(order, waits=True, dies=False)
            worker.join(max(0.0, deadline - time.monotonic()))
        for worker in self._workers:
            worker.kill()
            worker.join()
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.1)

    # -- faults of clusters

    def _trouble(self, name: str, luck: float) -> None:
        """Let one cluster have its faults."""
        chance = random.Random(f"{self._job_id}{name}")
        proxy = self._pool.proxies[name]
        if luck < self._fire.spared:
            return
        while not self._end.wait(chance.uniform(0.0, self._fire.pause_s)):
            kind = chance.random()
            if kind < 0.3:
                proxy.refusing = True
                proxy.cut_now()
                self._note("cluster out of reach")
                longest_s = 14.0 if self._is_kept and chance.random() < 0.3 else 1.5 * self._fire.pause_s
                if self._end.wait(chance.uniform(0.0, longest_s)):
                    return
                proxy.refusing = False
            elif kind < 0.6:
                proxy.cut_after(pieces=chance.randrange(1, 40), direction=chance.choice(("up", "down", "both")))
                self._note("connection cut in the middle")
            elif kind < 0.7 and self._fire.freezes:
                proxy.freeze_now()
                self._note("connection frozen")
            elif kind < 0.75:
                proxy.delay_s = chance.choice((0.0, 0.01, 0.03))
            elif self._kill_program(name, chance):
                self._note("program killed on a cluster")

    def _kill_program(self, name: str, chance: random.Random) -> bool:
        """Kill one of the program's processes on a cluster that carry out something."""
        found = []
        for pid in processes_under(self._pool.roots[name].parent):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if {"place", "submit", "renew", "appraise", "status", "dispatch"} & set(words):
                    found.append(pid)
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(found), signal.SIGKILL)
            return True
        return False

    # -- the proof

    def _attempts(self) -> Iterator[tuple[str, Path]]:
        for name, root in self._pool.roots.items():
            for folder in sorted((root / self._job_id / ".job" / "attempts").glob("[0-9]*")):
                yield name, folder

    def _ends(self, state: str) -> list[str]:
        return [
            f"{name}/{folder.name}" for name, folder in self._attempts() if _read(folder, "exit").get("state") == state
        ]

    def _alive(self) -> list[str]:
        return [f"{name}/{folder.name}" for name, folder in self._attempts() if not _read(folder, "exit")]

    def _prove(self) -> None:
        """See in the records of all clusters, and in what the job has written, what has run when."""
        told = [line.split() for line in self._runs.read_text().splitlines()] if self._runs.exists() else []
        begins = {(job, number): float(at) for what, job, number, at in told if what == "begin"}
        ends = {(job, number): float(at) for what, job, number, at in told if what == "end"}
        runs = []
        for name, folder in self._attempts():
            key = (str(self._pool.roots[name] / self._job_id), folder.name)
            if key in begins:
                ended = _read(folder, "exit").get("ended_at")
                until = ends.get(key) or (datetime.fromisoformat(ended).timestamp() if ended else float("inf"))
                runs.append((begins[key], until, f"{name}/{folder.name}"))
        runs.sort()
        for (_, until, one), (begin, _, other) in itertools.pairwise(runs):
            if begin < until:
                self._proof.twice.append(f"{self._job_id}: {one} and {other}: {self._story()}")
        if len(begins) != sum(what == "begin" for what, *_ in told):
            self._proof.twice.append(f"{self._job_id}: an attempt has begun twice: {told}")
        succeeded = self._ends("SUCCEEDED")
        if not succeeded:
            self._proof.lost.append(f"{self._job_id}: {self._story()}")
        elif len(succeeded) > 1:
            if self._is_kept:
                self._proof.again += 1
            else:
                self._proof.twice.append(f"{self._job_id}: ended well on {succeeded}: {self._story()}")

    def _story(self) -> str:
        """Return what a person needs to find out what has happened."""
        attempts = {
            f"{name}/{folder.name}": {
                "request": {"placement": _read(folder, "request").get("placement")},
                "end": {key: _read(folder, "exit").get(key) for key in ("state", "placement", "message", "ended_at")},
            }
            for name, folder in self._attempts()
        }
        notes = {name: _read(root / ".gpu-run" / "placements", self._job_id) for name, root in self._pool.roots.items()}
        log = self._pool._folder / f"{self._job_id}.log"
        said = log.read_text()[-6000:] if log.exists() else ""
        runs = self._runs.read_text() if self._runs.exists() else ""
        return f"kept={self._is_kept} {json.dumps(attempts)} {json.dumps(notes)}\n{runs}\n{said}"


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json" if name else folder / PLACEMENT_KEY
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_text()))
    return {}


def _be_worker(pool: PoolUnderFire, plan: _Plan) -> None:
    """Run in a worker's process."""
    log = begin_own_log(pool._folder / f"{plan.job_id}.log")
    holding.MARGIN_S = MARGIN_S
    keeping.PLACE_EVERY_S = keeping.TELL_EVERY_S = 1.0
    try:
        pool.work(plan)
    except GpuClusterError as error:
        print(f"{time.time():.3f} {plan.key} {type(error).__name__}: {error}", file=log)
    except BaseException:
        traceback.print_exc(file=log)
    log.flush()
    # Threads that wait for a silent cluster are left behind.
    os._exit(0)


def _provide_program(root: Path, ahead_s: float) -> None:
    """Let a root have the program, with a clock of its own."""
    provide_unpacked(root)
    if not ahead_s:
        return
    (link,) = [path for path in (root / ".gpu-run").iterdir() if path.is_symlink()]
    own = link.resolve()
    link.unlink()
    shutil.copytree(own, link)
    with open(link / "gpu_run" / "__init__.py", "a") as file:
        file.write(f"import time\n_true_time = time.time\ntime.time = lambda: _true_time() + {ahead_s}\n")
