"""Hides in what is shown what Airflow's own processes know to be secret."""

from __future__ import annotations

from typing import TypeVar, cast

from airflow._shared.secrets_masker import redact as redact_in_server
from airflow.sdk.log import redact  # type: ignore[attr-defined]

_Value = TypeVar("_Value")
_MAX_DEPTH = 10


def shown(value: _Value) -> _Value:
    """
    Return JSON values without secrets of connections.

    What a job was given is hidden on its cluster already. Airflow's own part of the API server, and the SDK that hooks
    belong to, each know some secrets.
    """
    return cast("_Value", redact_in_server(redact(value, max_depth=_MAX_DEPTH), max_depth=_MAX_DEPTH))
