"""The ``notify`` of an operator or sensor: when people are to be told about a job that waits or runs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.gpu_run.protocol import notices

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.notices import NotifyWhen

_SWITCHES = (notices.RECOVERED, notices.IDLE)
_EXAMPLE = "{'queued_for': 1800, 'time_limit_in': timedelta(minutes=15), 'recovered': True}"


def notify_when(notify: Any) -> NotifyWhen:
    """
    Return what a DAG author has written, with durations in seconds; empty for nothing.

    :raises InvalidJobError: it cannot be used.
    """
    if notify is None:
        return {}
    if not isinstance(notify, Mapping):
        raise InvalidJobError(f"notify is a {type(notify).__name__}; it must be a dict such as {_EXAMPLE}")
    found: dict[str, Any] = {}
    for name, value in notify.items():
        if name not in notices.NOTICES:
            near = get_close_matches(str(name).lower().replace("-", "_"), notices.NOTICES, 1, 0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise InvalidJobError(
                f"notify has the key {repr(name)[:100]}{hint}; valid are {', '.join(notices.NOTICES)}"
            )
        if value is None or value is False:
            continue
        if name in _SWITCHES:
            if value is not True:
                raise InvalidJobError(f"notify[{name!r}] is {repr(value)[:100]}; it must be True or False")
            found[name] = True
        else:
            found[name] = _seconds(name, value)
    return cast("NotifyWhen", found)


def _seconds(name: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise InvalidJobError(
            f"notify[{name!r}] is {repr(value)[:100]}; it must be seconds above 0 or a timedelta, such as 1800"
        )
    return float(seconds)


def earliest(one: NotifyWhen, other: NotifyWhen) -> NotifyWhen:
    """Return the conditions of which each is met as soon as that of either is."""
    values: dict[str, Any] = {**one}
    for name, value in other.items():
        values[name] = min(values[name], value) if name in values else value
    return cast("NotifyWhen", values)


def written_notifier(notifier: Any) -> list[Any]:
    """
    Return a notifier as the path of its class and its arguments, from which any process can make it again.

    :param notifier: a notifier, or what this function has returned.
    :raises InvalidJobError: that is not possible.
    """
    if isinstance(notifier, (list, tuple)) and [type(part) for part in notifier] == [str, dict]:
        return list(notifier)
    serialize = getattr(notifier, "serialize", None)
    if isinstance(notifier, type) or not callable(serialize) or not callable(getattr(notifier, "send_event", None)):
        raise InvalidJobError(
            f"notifier is {_named(notifier)}; it must be a GpuJobNotifier, which takes other notifiers as "
            "GpuJobNotifier(via=SmtpNotifier(...))"
        )
    path, arguments = serialize()
    return [path, arguments]


def checked_notify(notify: Any, notifier: Any) -> tuple[NotifyWhen, list[Any] | None]:
    """
    Return both arguments as values that a trigger can keep.

    :raises InvalidJobError: one of them cannot be used, or nobody would be told.
    """
    when = notify_when(notify)
    if not when:
        return when, None
    if notifier is None:
        raise InvalidJobError(
            "notify says when people are to be told, and nothing how: give notifier=GpuJobNotifier(...) as well"
        )
    return when, written_notifier(notifier)


def _named(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
