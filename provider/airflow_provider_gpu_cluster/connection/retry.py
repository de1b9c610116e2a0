"""For how long to try again to reach a cluster, by what went wrong."""

from __future__ import annotations

import socket

import paramiko

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterHostKeyError,
)

# A stock sshd drops connections when many arrive at once (MaxStartups); a wrong address stays wrong.
PATIENCE_S = 120.0
PATIENCE_WITH_ADDRESS_S = 5.0


def is_worth_another_try(error: BaseException) -> bool:
    """Tell whether what went wrong may go well the next time."""
    final = (GpuClusterAuthenticationError, GpuClusterHostKeyError)
    return isinstance(error, GpuClusterConnectionError) and not isinstance(error, final)


def patience_with(error: BaseException | None, patience_s: float) -> float:
    """Return for how long to try again after an error, in seconds: a wrong address stays wrong."""
    if error is not None and _is_about_address(error.__cause__):
        return min(patience_s, PATIENCE_WITH_ADDRESS_S)
    return patience_s


def _is_about_address(cause: BaseException | None) -> bool:
    if isinstance(cause, paramiko.ssh_exception.NoValidConnectionsError):
        return True
    return isinstance(cause, (socket.gaierror, ConnectionRefusedError))
