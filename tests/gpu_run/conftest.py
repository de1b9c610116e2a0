"""Fixtures for tests of the program without SSH."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gpu_run.host import Host
from tests.gpu_run.watch.client import Client


@pytest.fixture
def host(cluster_folder: Path) -> Host:
    """Return a host whose root belongs to this test alone."""
    return Host(cluster_folder)


@pytest.fixture
def watch(host: Host) -> Iterator[Callable[..., Client]]:
    """Return a function that starts a ``gpu-run watch``; at the end each must have ended well."""
    clients: list[Client] = []

    def start(change: str = "") -> Client:
        clients.append(Client(host, change))
        return clients[-1]

    yield start
    for client in clients:
        if not client.has_ended:
            assert client.end() == (0, "")
