"""``python -m airflow_provider_gpu_cluster.sandbox``: run a sandbox until it is told to stop."""

from __future__ import annotations

import argparse
import os
import select
import shlex
import signal
import sys
import time
from collections.abc import Callable

from airflow_provider_gpu_cluster.sandbox import Sandbox
from airflow_provider_gpu_cluster.sandbox.cluster import SandboxCluster

_LOOK_EVERY_S = 0.5
# What can be typed about a cluster of several: what is done, and what is said then.
_FAULTS: dict[str, tuple[Callable[[SandboxCluster], None], str]] = {
    "cut": (SandboxCluster.cut_off, "cannot be reached any more; its jobs run on"),
    "hang": (SandboxCluster.hang, "does not answer any more; its jobs run on"),
    "crash": (SandboxCluster.crash, "is down; its jobs were killed"),
    "restore": (SandboxCluster.restore, "is there again"),
}


def main() -> int:
    """Run a sandbox; a shell can read the lines that it prints first."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_gpu_cluster.sandbox",
        description="One cluster or several on this machine, with virtual GPUs, reached by SSH on loopback.",
    )
    parser.add_argument("--clusters", type=int, metavar="N", help="number of clusters (default: 1)")
    parser.add_argument(
        "--gpus",
        type=_gpus,
        default=4,
        metavar="N[,N...]",
        help="number of virtual GPUs; or one number for each cluster, such as 8,4,2 (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        help="port to listen on, and the next ones for more clusters (default: free ones)",
    )
    parser.add_argument("--root", metavar="DIR", help="keep keys and jobs here (default: a temporary folder)")
    arguments = parser.parse_args()
    try:
        sandbox = Sandbox(gpus=arguments.gpus, port=arguments.port, root=arguments.root, clusters=arguments.clusters)
    except ValueError as error:
        parser.error(str(error))
    # All signals that stop it act like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with sandbox:
            print(_explanation(sandbox), flush=True)
            _serve(sandbox)
    except KeyboardInterrupt:
        pass
    except OSError as error:
        print(f"cannot start the sandbox: {error}", file=sys.stderr)
        return 1
    return 0


def _gpus(text: str) -> int | list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs, and not one for each cluster, such as 8,4,2")
    counts = [int(word) for word in words]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return counts if len(counts) > 1 else counts[0]


def _serve(sandbox: Sandbox) -> None:
    """Run for ever; if there are several clusters, do what is typed about them."""
    listens = len(sandbox.clusters) > 1
    while True:
        # If another thread received the signal, this loop notices it; pause() would block forever.
        if not listens:
            time.sleep(_LOOK_EVERY_S)
        elif _can_read() and select.select([sys.stdin], [], [], _LOOK_EVERY_S)[0]:
            typed = os.read(sys.stdin.fileno(), 1 << 16).decode(errors="replace")
            listens = bool(typed)
            for line in filter(str.strip, typed.splitlines()):
                print(_obey(sandbox, line.split()), flush=True)


def _can_read() -> bool:
    """Return whether nobody else reads what is typed; a process in the background would be stopped if it did."""
    if not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp():
        return True
    time.sleep(_LOOK_EVERY_S)
    return False


def _obey(sandbox: Sandbox, words: list[str]) -> str:
    clusters = {cluster.conn_id: cluster for cluster in sandbox.clusters}
    if len(words) != 2 or words[0] not in _FAULTS or words[1] not in clusters:
        return f"# Not understood. Type one of {', '.join(_FAULTS)}, and one of {', '.join(clusters)}."
    act, meaning = _FAULTS[words[0]]
    try:
        act(clusters[words[1]])
    except OSError as error:
        return f"# {words[1]}: {error}"
    return f"# {words[1]} {meaning}."


def _explanation(sandbox: Sandbox) -> str:
    lines = []
    for cluster in sandbox.clusters:
        name = "A cluster" if len(sandbox.clusters) == 1 else cluster.conn_id
        lines += [
            f"# {name} with {cluster.gpus} virtual GPUs on {cluster.host}:{cluster.port}; "
            f"its jobs are in {cluster.root_dir}",
            f"# To look around: ssh -i {cluster.folder}/client_key -p {cluster.port} {cluster.login}@{cluster.host}",
        ]
    lines.append(f"# To use {'it' if len(lines) == 2 else 'them'} from Airflow, set this before you start Airflow:")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sandbox.connections.items()]
    if len(sandbox.clusters) > 1:
        lines += [
            f"# A pool of them all is the connection gpu_cluster_pool. To let one fail, type {', '.join(_FAULTS)}",
            f"# (to bring it back) and its name, such as: cut {sandbox.clusters[-1].conn_id}",
        ]
    end = "jobs end and files are removed" if sandbox.temporary else "jobs and files stay"
    lines.append(f"# To stop: Ctrl-C, or kill {os.getpid()}; {end}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
