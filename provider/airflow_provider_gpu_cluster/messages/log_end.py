"""The last lines of a job's output, for a message. Whatever a job has printed, they are few, short and harmless."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_gpu_cluster.connection.words import cleaned, readable

MOST_LINES = 20
MOST_CHARACTERS = 240
_KEPT = 1 << 16
# No secret that is cut in two may be shown by its second half.
_CUT_OFF = 1 << 13


def last_lines(output: str, hide: Callable[[str], str]) -> tuple[str, ...]:
    """
    Return the last lines of an output, as a person should see them.

    :param hide: returns a text without secrets.
    """
    tail = hide(output[-_KEPT:])
    if len(output) > _KEPT:
        _, found, rest = tail.partition("\n")
        tail = rest if found else tail[_CUT_OFF:]
    lines = [line.rstrip() for line in readable(tail).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    shown = [cleaned(line.expandtabs(4), MOST_CHARACTERS) for line in lines[-MOST_LINES:]]
    while shown and not shown[0]:
        del shown[0]
    return tuple(shown)
