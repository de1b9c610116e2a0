"""How long to keep trying to reach a cluster, depending on the error."""

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
    """Return whether another try may succeed after this error."""
    final = (GpuClusterAuthenticationError, GpuClusterHostKeyError)
    return isinstance(error, GpuClusterConnectionError) and not isinstance(error, final)


class StopWhenOutOfReach:
    """
    Tells tenacity to stop when the cluster has been unreachable for long.

    The time counts from the first failure, because a transfer may have run for hours before.

    :param seconds: how long to keep trying, in seconds.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        """Return whether it is time to stop."""
        error = error_of_try(state)
        if self._since is None:
            self._since = time.monotonic()
        longest_s = min(self._seconds, RETRY_WRONG_ADDRESS_FOR_S) if is_about_address(error) else self._seconds
        return time.monotonic() - self._since >= longest_s


def error_of_try(state: tenacity.RetryCallState) -> BaseException | None:
    """Return the exception of the last try."""
    return None if state.outcome is None else state.outcome.exception()


def is_about_address(error: BaseException | None) -> bool:
    """Return whether nothing listens where the cluster should be, or there is no such place."""
    cause = None if error is None else error.__cause__
    if isinstance(cause, paramiko.ssh_exception.NoValidConnectionsError):
        return True
    return isinstance(cause, (socket.gaierror, ConnectionRefusedError))
