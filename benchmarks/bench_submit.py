"""
A submit with nothing to upload: how many round trips, and how long, beside a bare ``ssh host python3 -c pass``.

And arrays: how long their submits take, beside as many submits of one job.
"""

from __future__ import annotations

import itertools
import subprocess
import tempfile
import threading
from functools import partial
from pathlib import Path

import paramiko

from airflow_provider_gpu_cluster.sources import parse_sources
from benchmarks.measure import Bench, bench, line, paired, ratio
from tests.harness.jobs import submit, submit_array
from tests.servers.proxy import CutProxy

RUNS = 15
DELAY_S = 0.1


def main() -> None:
    with bench(gpus=64) as cluster:
        with cluster.cluster() as session:
            submit(session, "true")  # the program is on the cluster from here on
        numbers = itertools.count()

        def ours() -> None:
            with cluster.cluster() as session:
                submit(session, "true", job_id=f"bench-{next(numbers)}")

        def theirs() -> None:
            subprocess.run(cluster.ssh("python3", "-c", "pass"), check=True, stdin=subprocess.DEVNULL)

        def connect_only() -> None:
            cluster.connect().close()

        mine, other, connecting = paired(RUNS, ours, theirs, connect_only)
        line("submit, connection included", mine)
        line("ssh host python3 -c pass", other)
        line("paramiko's connection alone", connecting)
        print(f"submit / ssh python3 -c pass: {ratio(mine, other):.2f} (target: at most 2)")
        with cluster.cluster() as session:
            session.capacity()
            (warm,) = paired(RUNS, lambda: submit(session, "true", job_id=f"warm-{next(numbers)}"))
            line("submit over a connection that is open", warm)
        _round_trips(cluster)
        _arrays(cluster)


def _arrays(cluster: Bench) -> None:
    """Submit arrays with 20 files of code behind a job that has all GPUs, so that nothing else is measured."""
    with cluster.cluster() as session, tempfile.TemporaryDirectory() as folder:
        for number in range(20):
            Path(folder, f"{number}.py").write_text("x" * 1000)
        code = parse_sources(code=folder, data=(), models=(), base_dir=Path(folder))
        submit(session, "sleep 600", job_id="blocker", gpus=64)
        numbers = itertools.count()
        for size in (1, 10, 100, 1000):
            envs = [{"SEED": str(seed)} for seed in range(size)]
            runs = 1 if size == 1000 else 3
            made, again, looks, cancels = [], [], [], []
            for _ in range(runs):
                job_id = f"array-{next(numbers)}"
                ask = partial(submit_array, session, "true", envs, job_id=job_id, sources=code)
                made += paired(1, ask)[0]
                again += paired(1, partial(ask, request_key="try-2"))[0]
                looks += paired(1, partial(session.statuses, [job_id]))[0]
                cancels += paired(1, partial(session.cancel, [job_id], requested_by="the benchmark"))[0]
            line(f"submit of an array of {size}", made)
            line("  the same in another try, which finds all", again)
            line("  its state, asked for once", looks)
            line("  cancel of all", cancels)
        (single,) = paired(10, lambda: submit(session, "true", job_id=f"single-{next(numbers)}", sources=code))
        line("submit of one job with that code", single)
        session.cancel(["blocker"], requested_by="the benchmark", wait_s=10)


def _round_trips(cluster: Bench) -> None:
    """Count exec channels, and what a delay in each direction adds."""
    channels: list[str] = []
    original = paramiko.Transport.open_session

    def counted(self: paramiko.Transport, *arguments: object, **options: object) -> object:
        channels.append(threading.current_thread().name)
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    paramiko.Transport.open_session = counted  # type: ignore[method-assign,assignment]
    proxy = CutProxy((cluster.sshd.host, cluster.sshd.port))
    try:
        with cluster.cluster() as session:
            session.capacity()
            channels.clear()
            submit(session, "true", job_id="round-trips")
        print(f"SSH channels that a submit opens after connecting: {len(channels)}")
        port, cluster.sshd.port = cluster.sshd.port, proxy.port
        with cluster.cluster() as session:
            session.capacity()
            (near,) = paired(5, lambda: submit(session, "true", job_id=f"near-{len(channels)}"))
            proxy.delay_s = DELAY_S
            (far,) = paired(5, lambda: submit(session, "true", job_id=f"far-{len(channels)}"))
        cluster.sshd.port = port
        trips = (sorted(far)[2] - sorted(near)[2]) / (2 * DELAY_S)
        print(f"network round trips of a submit after connecting, from a delay of {DELAY_S:.1f} s: {trips:.2f}")
    finally:
        proxy.close()
        paramiko.Transport.open_session = original  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
