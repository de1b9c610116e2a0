"""The command line that runs the program on the cluster, through any login shell."""

from __future__ import annotations

import shlex

from airflow_provider_gpu_cluster.connection.command_start import SAY_READY
from airflow_provider_gpu_cluster.connection.root_dir import quoted_path, shell_text
from airflow_provider_gpu_cluster.connection.safe_start import SAFE_START
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.gpu_run import protocol


def command_line(settings: ClusterSettings, program: str, verb: str) -> str:
    """
    Return a line that any login shell understands: it starts the program, or its exit code says why it cannot.

    It first says that it runs; see :mod:`.command_start`.

    :param program: name of the program's archive.
    """
    python = settings.python or "python3"
    # A bare name is looked up in the PATH.
    python = quoted_path(python) if "/" in python else shlex.quote(python)
    script = (
        f'{SAY_READY}; {shell_text(settings.root_dir)}p="$r"/.gpu-run/{program}; '
        f'[ -f "$p" ] || exit {protocol.EXIT_PROGRAM_MISSING}; '
        f"command -v {python} >/dev/null 2>&1 || exit {protocol.EXIT_NO_PYTHON}; "
        f'exec {python} -I -S -c {shlex.quote(SAFE_START)} "$p" {verb}'
    )
    return f"exec sh -c {shlex.quote(script)}"


def root_line(settings: ClusterSettings) -> str:
    """Return a line that prints the path of the root as the last thing."""
    return "exec sh -c {}".format(shlex.quote(f'{shell_text(settings.root_dir)}printf "\\n%s" "$r"'))
