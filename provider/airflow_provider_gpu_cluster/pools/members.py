"""The clusters of a pool to which one process has connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class MemberClient(Protocol):
    """What a member of a pool is asked through: a :class:`.Cluster`, or something that asks in its place."""

    def interrupt(self) -> None:
        """Make a call that waits fail now."""

    def close(self) -> None:
        """Close the connection."""


_Client = TypeVar("_Client", bound=MemberClient)


class Members(Generic[_Client]):
    """
    Clusters, each made when it is first needed and then kept, so that one login serves all that is asked of it.

    :param make: makes the cluster of a connection, without connecting.
    """

    def __init__(self, make: Callable[[str], _Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._kept: dict[str, _Client] = {}

    def __call__(self, conn_id: str) -> _Client:
        """Return a cluster, for use by one thread at a time."""
        with self._lock:
            if conn_id not in self._kept:
                self._kept[conn_id] = self._make(conn_id)
            return self._kept[conn_id]

    def leave(self, conn_id: str, client: _Client) -> None:
        """Forget a cluster that another thread still waits for, and make that end; the next user gets a new one."""
        with self._lock:
            if self._kept.get(conn_id) is client:
                del self._kept[conn_id]
        client.interrupt()

    def is_kept(self, conn_id: str, client: _Client) -> bool:
        """Return whether a cluster was not left."""
        with self._lock:
            return self._kept.get(conn_id) is client

    def interrupt(self) -> None:
        """Make all calls that wait fail now. Safe in a signal handler."""
        for client in list(self._kept.values()):
            client.interrupt()

    def close(self) -> None:
        """Close all connections; the next user of a cluster gets a new one."""
        with self._lock:
            kept, self._kept = self._kept, {}
        for client in kept.values():
            client.close()
