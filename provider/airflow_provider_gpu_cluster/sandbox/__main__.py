"""``python -m airflow_provider_gpu_cluster.sandbox``: run a sandbox cluster until it is told to stop."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time

from airflow_provider_gpu_cluster.sandbox import Sandbox


def main() -> int:
    """Run a sandbox cluster; a shell can read the lines that it prints first."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_gpu_cluster.sandbox",
        description="A cluster on this machine, with virtual GPUs, reached by SSH on loopback.",
    )
    parser.add_argument("--gpus", type=int, default=4, help="number of virtual GPUs (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--root", metavar="DIR", help="keep keys and jobs here (default: a temporary folder)")
    arguments = parser.parse_args()
    if arguments.gpus < 1:
        parser.error("--gpus must be at least 1")
    # All signals that stop it act like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with Sandbox(gpus=arguments.gpus, port=arguments.port, root=arguments.root) as sandbox:
            print(_explanation(sandbox), flush=True)
            while True:
                # If another thread received the signal, this loop notices it; pause() would block forever.
                time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"cannot start the sandbox: {error}", file=sys.stderr)
        return 1


def _explanation(sandbox: Sandbox) -> str:
    (name, value), *_ = sandbox.environ().items()
    login = f"-p {sandbox.port} {sandbox.login}@{sandbox.host}"
    end = "its jobs end and its files are removed" if sandbox.temporary else "its jobs and files stay"
    return "\n".join(
        [
            f"# A cluster with {sandbox.gpus} virtual GPUs on {sandbox.host}:{sandbox.port}; "
            f"its jobs are in {sandbox.root_dir}",
            "# To use it from Airflow, set this variable before you start Airflow:",
            f"export {name}={shlex.quote(value)}",
            f"# To look around: ssh -i {sandbox.folder}/client_key {login}",
            f"# To stop it: Ctrl-C, or kill {os.getpid()}; {end}.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
