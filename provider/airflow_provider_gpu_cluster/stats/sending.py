"""Sends metrics through Airflow's Stats. Nothing here raises, whatever is wrong with the backend of a deployment."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow_provider_gpu_cluster.stats.metrics import Metric

# A StatsD server for InfluxDB gets the tags as a part of the name, of which Airflow takes 250 characters.
MOST_TAG_CHARACTERS = 46
_HASH_CHARACTERS = 8
_BAD = re.compile(r"[^a-zA-Z0-9_.-]")

_lock = threading.Lock()
_is_ready = False


def count(metric: Metric, tags: Mapping[str, Any], amount: float = 1) -> None:
    """
    Add to a counter.

    :param tags: its tags; those that are None or empty are left out.
    """
    if amount > 0:
        with _never_failing():
            _stats().incr(metric.name, _number(amount), tags=_tags(tags))


def time(metric: Metric, tags: Mapping[str, Any], seconds: float | None) -> None:
    """Note a duration; None if it is not known."""
    if seconds is not None and seconds >= 0:
        with _never_failing():
            _stats().timing(metric.name, timedelta(seconds=seconds), tags=_tags(tags))


def gauge(metric: Metric, tags: Mapping[str, Any], value: float) -> None:
    """Set a gauge."""
    with _never_failing():
        _stats().gauge(metric.name, value, tags=_tags(tags))


def _never_failing() -> contextlib.AbstractContextManager[None]:
    # A backend that is configured wrongly, or gone, is told by Airflow itself; a task has other things to do.
    return contextlib.suppress(Exception)


def _stats() -> Any:
    """Return Airflow's Stats, configured."""
    # Imported late: a file of DAGs is parsed again and again, and sends nothing.
    from airflow.sdk.observability.stats import Stats

    global _is_ready
    if not _is_ready:
        with _lock:
            if not _is_ready:
                _configure(Stats)
                _is_ready = True
    return Stats


def _configure(stats: Any) -> None:
    """Do what Airflow does at the start of a task, in a process for which it has not done so."""
    from airflow.sdk.configuration import conf
    from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

    if getattr(sys.modules[stats.initialize.__module__], "_factory", "configured") is None:
        legacy = conf.getboolean("metrics", "legacy_names_on", fallback=True)
        stats.initialize(factory=get_stats_factory(), export_legacy_names=legacy)


def _number(amount: float) -> float:
    return int(amount) if amount == int(amount) else round(amount, 3)


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {name: tag_value(str(value)) for name, value in tags.items() if value not in (None, "")}


def tag_value(text: str) -> str:
    """
    Return a text as the value of a tag that every backend takes.

    Airflow drops a metric, or a tag, with a letter that one of its backends cannot take. Texts that differ stay
    different.
    """
    plain = _BAD.sub("_", text)
    if plain == text and len(text) <= MOST_TAG_CHARACTERS:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]
    return f"{plain[: MOST_TAG_CHARACTERS - _HASH_CHARACTERS - 1]}-{digest}"
