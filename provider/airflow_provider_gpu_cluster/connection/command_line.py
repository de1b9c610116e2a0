"""The command line that runs the program on the cluster, through any login shell."""

from __future__ import annotations

import shlex

from airflow_provider_gpu_cluster.connection.safe_start import SAFE_START
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.gpu_run import protocol


def command_line(settings: ClusterSettings, program: str, verb: str) -> str:
    """
    Return a line that any login shell understands: it starts the program, or its exit code says why it cannot.

    :param program: name of the program's archive.
    """
    path = f"{_shell_path(settings.root_dir)}/.gpu-run/{program}"
    python = settings.python or "python3"
    # A bare name is looked up in the PATH.
    python = _shell_path(python) if "/" in python else shlex.quote(python)
    script = (
        f'p={path}; [ -f "$p" ] || exit {protocol.EXIT_PROGRAM_MISSING}; '
        f"command -v {python} >/dev/null 2>&1 || exit {protocol.EXIT_NO_PYTHON}; "
        f'exec {python} -I -S -c {shlex.quote(SAFE_START)} "$p" {verb}'
    )
    return f"exec sh -c {shlex.quote(script)}"


def _shell_path(path: str) -> str:
    """Quote a path for sh; ``~/`` is the home directory on the cluster, where relative paths start, too."""
    if path == "~":
        return '"$HOME"'
    if path.startswith("/"):
        return shlex.quote(path)
    return '"$HOME"/' + shlex.quote(path.removeprefix("~/"))
