"""A submit with nothing to upload: how many round trips, and how long, beside a bare ``ssh host python3 -c pass``."""

from __future__ import annotations

import itertools
import subprocess
import threading

import paramiko

from benchmarks.measure import Bench, bench, line, paired, ratio
from tests.jobs import submit
from tests.proxy import CutProxy

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
