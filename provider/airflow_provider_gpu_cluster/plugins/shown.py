"""Makes values fit to be shown: without secrets that Airflow's own processes know, and such that JSON can hold them."""

from __future__ import annotations

import re
from typing import Any, TypeVar, cast

from airflow._shared.secrets_masker import redact as redact_in_server
from airflow.sdk.log import redact  # type: ignore[attr-defined]

from airflow_provider_gpu_cluster.jobs.metrics import storable

_Value = TypeVar("_Value")
_MAX_DEPTH = 10
# Halves of characters, which JSON can name and UTF-8 cannot hold.
_HALVES = re.compile("[\ud800-\udfff]")


def shown(value: _Value) -> _Value:
    """
    Return JSON values without secrets of connections.

    What a job was given is hidden on its cluster already. Airflow's own part of the API server, and the SDK that hooks
    belong to, each know some secrets. Numbers that JSON cannot hold become texts; see :func:`.jobs.metrics.storable`.
    """
    hidden = redact_in_server(redact(value, max_depth=_MAX_DEPTH), max_depth=_MAX_DEPTH)
    return cast("_Value", _whole(storable(hidden)))


def shown_lines(lines: list[str]) -> list[str]:
    """Return the same lines of text, without such secrets; faster than one by one."""
    found = shown("\n".join(lines)).split("\n") if lines else []
    # A secret may have several lines.
    return found if len(found) == len(lines) else [shown(line) for line in lines]


def shown_bytes(data: bytes) -> bytes:
    """Return bytes of a file without such secrets, and otherwise as they are."""
    text = data.decode("utf-8", "surrogateescape")
    hidden = cast("str", redact_in_server(redact(text)))
    return data if hidden == text else hidden.encode("utf-8", "surrogateescape")


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else _HALVES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value
