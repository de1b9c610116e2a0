"""Errors in what a DAG author writes, told with the task, the DAG file and the nearest good name."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from airflow.sdk import BaseOperator

from airflow_provider_gpu_cluster.exceptions import InvalidJobError

_SAID_OF = re.compile(r"unexpected keyword argument '(\w+)'|\*\*kwargs: (\{.*\})", re.DOTALL)


@contextlib.contextmanager
def naming_arguments(operator_class: type, arguments: Any) -> Iterator[None]:
    """
    Add to Airflow's error about an unknown argument which known one it may have been meant for.

    :param arguments: the names that were given.
    :raises TypeError: as Airflow does.
    """
    try:
        yield
    except TypeError as error:
        if not _SAID_OF.search(str(error)):
            raise
        known = _names(operator_class)
        unknown = [str(name) for name in arguments if name not in known]
        hints = [f"{name}: did you mean {near}?" for name in unknown if (near := nearest(name, known))]
        if not hints:
            raise
        raise TypeError("\n".join([re.sub(r":? \{.*\}", f": {', '.join(unknown)}", str(error)), *hints])) from None


def nearest(name: str, known: set[str]) -> str | None:
    """Return the known name that an unknown one may have been meant for."""
    plain = {word.replace("_", ""): word for word in sorted(known)}
    word = name.lower().replace("_", "").replace("-", "")
    close = difflib.get_close_matches(word, plain, n=1, cutoff=0.75)
    begins = [good for short, good in plain.items() if len(short) > 3 and word.startswith(short)]
    return plain[close[0]] if close else begins[0] if begins else None


@contextlib.contextmanager
def naming_task(operator: BaseOperator) -> Iterator[None]:
    """
    Say of an error in a parameter which task of which DAG file has it.

    :raises InvalidJobError: with the same message, after that.
    """
    try:
        yield
    except InvalidJobError as error:
        dag = operator.get_dag()
        where = f" in {dag.fileloc}" if dag is not None else ""
        said = str(error)
        between = ":\n" if "\n" in said else ": "
        raise InvalidJobError(f"task {operator.task_id!r}{where}{between}{said}") from None


def _names(operator_class: type) -> set[str]:
    return {
        name
        for one in operator_class.__mro__
        if "__init__" in vars(one)
        for name, parameter in inspect.signature(vars(one)["__init__"]).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name != "self" and not name.startswith("_")
    }
