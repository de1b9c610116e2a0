"""How often a task asks about its job, which must be more often than the job's ``orphan_timeout``."""

from __future__ import annotations

from typing import Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError

# Airflow itself may take a while for each poke, and a connection may break.
_TIMES = 3


def check_asks_often_enough(name: str, interval_s: float, orphan_timeout_s: float | None, *, log: Any = None) -> None:
    """
    Refuse a pause between two looks at a job in which the job would be ended as one that nobody asks about.

    :param name: the parameter that gives the pause.
    :param orphan_timeout_s: of the job; None for none.
    :param log: where to warn of a pause that is nearly as long.
    :raises InvalidJobError: it is as long or longer.
    """
    if orphan_timeout_s is None:
        return
    if interval_s >= orphan_timeout_s:
        raise InvalidJobError(
            f"{name}={interval_s:g} s is not shorter than the job's orphan_timeout of {orphan_timeout_s:g} s: the "
            f"cluster would end the job between two looks at it. Make {name} shorter, or orphan_timeout longer"
        )
    if log is not None and interval_s * _TIMES > orphan_timeout_s:
        log.warning(
            "The job's orphan_timeout is short for the pauses between two looks at it; a look that is late ends it",
            orphan_timeout=orphan_timeout_s,
            **{name: interval_s},
        )
