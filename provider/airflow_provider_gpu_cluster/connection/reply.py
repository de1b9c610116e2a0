"""Finds the reply to a request in the output of a login shell."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from airflow_provider_gpu_cluster.connection.channel import text_of
from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.gpu_run import protocol

_MAX_NOISE_BYTES = 1 << 20


def read_reply(stream: BinaryIO, where: str) -> tuple[dict[str, Any] | None, str]:
    """
    Return the reply, or None if there is none, and what a login shell printed before it.

    :param where: the cluster, for messages.
    :raises GpuClusterSetupError: the shell prints without end.
    """
    noise = bytearray()
    size = 0
    while size < _MAX_NOISE_BYTES:
        line = stream.readline(_MAX_NOISE_BYTES)
        if not line:
            return None, text_of(noise)
        if line.rstrip(b"\r\n").endswith(protocol.REPLY_MARK):
            text = stream.readline()
            return (json.loads(text) if text.endswith(b"\n") else None), text_of(noise)
        # Signs of life are empty lines; they count, because a shell may also print empty lines without end.
        size += len(line)
        noise += line.lstrip(b"\n")
    raise GpuClusterSetupError(
        f"{where} prints without end before it runs a command; look at the login shell's start files there"
    )
