"""For how long to try again to reach a cluster, by what went wrong."""

from __future__ import annotations

import socket
import time

import paramiko
import tenacity

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterHostKeyError,
)

# A stock sshd drops connections when many arrive at once (MaxStartups).
RETRY_FOR_S = 120.0
# A wrong address stays wrong.
RETRY_WRONG_ADDRESS_FOR_S = 5.0


def is_worth_another_try(error: BaseException) -> bool:
    """Return whether what went wrong may go well the next time."""
    final = (GpuClusterAuthenticationError, GpuClusterHostKeyError)
    return isinstance(error, GpuClusterConnectionError) and not isinstance(error, final)


class StopWhenOutOfReach:
    """
    When tenacity is to stop: the cluster has been out of reach for long.

    That is measured from the first failure on: a transfer may have run for hours before.

    :param seconds: for how long to try again, in seconds.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        """Return whether it is time to stop."""
        error = error_of_try(state)
        if self._since is None:
            self._since = time.monotonic()
        longest_s = min(self._seconds, RETRY_WRONG_ADDRESS_FOR_S) if _is_about_address(error) else self._seconds
        return time.monotonic() - self._since >= longest_s


def error_of_try(state: tenacity.RetryCallState) -> BaseException | None:
    """Return what the last try has raised."""
    return None if state.outcome is None else state.outcome.exception()


def _is_about_address(error: BaseException | None) -> bool:
    cause = None if error is None else error.__cause__
    if isinstance(cause, paramiko.ssh_exception.NoValidConnectionsError):
        return True
    return isinstance(cause, (socket.gaierror, ConnectionRefusedError))
