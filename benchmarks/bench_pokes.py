"""A hundred reschedule-mode pokes at the same moment, each in a process of its own, against one stock sshd."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from airflow.providers.ssh.hooks.ssh import SSHHook

from airflow_provider_gpu_cluster.sensors.gpu_job import MEMORY_KEY, GpuJobSensor
from benchmarks.measure import SSH_CONN_ID, Bench, bench, line
from tests.harness.jobs import submit
from tests.harness.task_context import StateStore, task_context

POKES = 100
PATIENCE_S = 300.0
# So that all of them sleep when it begins.
LEAD_S = 1.0


@dataclass(frozen=True)
class Looked:
    """
    What one process says.

    :param seconds: how long it took, from the moment at which all began.
    :param error: what it raised; empty when nothing.
    :param unreached: the sensor says that the cluster could not be reached, and waits on.
    """

    seconds: float
    error: str = ""
    unreached: bool = False


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else POKES
    with bench(gpus=4) as cluster:
        with cluster.cluster() as session:
            handle = submit(session, "sleep 86400").handle.to_json()
        print("MaxStartups 10:30:100; each process has connected and asked once at the end of its time")
        _at_once(cluster, count, "GpuJobSensor.poke", lambda: _poke(handle))
        _at_once(cluster, count, "SSHHook, as SSHOperator connects, and `true`", _run_true)


def _poke(handle: dict[str, Any]) -> bool:
    """Poke as a worker does; return whether the cluster was not reached."""
    store = StateStore()
    sensor = GpuJobSensor(task_id="wait", job=handle)
    try:
        assert not sensor.poke(task_context(store=store)), "the job has not ended"
    finally:
        if sensor._hook is not None:
            sensor._hook.close()
    return "unreachable_since" in json.dumps(store[MEMORY_KEY])


def _run_true() -> bool:
    with SSHHook(ssh_conn_id=SSH_CONN_ID).get_conn() as client:
        _, stdout, _ = client.exec_command("true")
        assert stdout.channel.recv_exit_status() == 0
    return False


def _at_once(cluster: Bench, count: int, what: str, look: Callable[[], bool]) -> None:
    """Let that many processes look at the same moment, and print what came of it."""
    os.environ.update(cluster.connections())
    # Forked after a first look, so that all is imported.
    with _nothing_printed():
        look()
    processes = multiprocessing.get_context("fork")
    looked = processes.SimpleQueue()
    begin = processes.Value("d")

    def all_are_there() -> None:
        begin.value = time.monotonic() + LEAD_S

    together = processes.Barrier(count, all_are_there)

    def work() -> None:
        with _nothing_printed():
            together.wait()
            time.sleep(begin.value - time.monotonic())
            looked.put(_looked(look, begin.value))

    workers = [processes.Process(target=work) for _ in range(count)]
    before = _refused(cluster)
    sys.stdout.flush()
    for worker in workers:
        worker.start()
    answers = [looked.get() for _ in workers]
    for worker in workers:
        worker.join(PATIENCE_S)
    print(f"\n-- {count} at once: {what}")
    errors = [answer.error for answer in answers if answer.error]
    print(f"failed: {len(errors)} {errors[:2]}")
    print(f"cluster not reached, waits on: {sum(answer.unreached for answer in answers)}")
    print(f"connections that sshd turned away: {_refused(cluster) - before}")
    line("from the moment at which all began", [answer.seconds for answer in answers])
    sys.stdout.flush()


def _looked(look: Callable[[], bool], began: float) -> Looked:
    try:
        unreached, error = look(), ""
    except Exception as caught:
        unreached, error = False, repr(caught)
    return Looked(time.monotonic() - began, error, unreached)


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Leave out what is logged."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _refused(cluster: Bench) -> int:
    return cluster.sshd.log.read_bytes().count(b"drop connection ")


if __name__ == "__main__":
    main()
