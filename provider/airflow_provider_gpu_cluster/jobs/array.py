"""Parses the ``array`` that a DAG author writes: a list with what differs in each element."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.jobs.handle import MAX_ARRAY_SIZE
from airflow_provider_gpu_cluster.jobs.rendered import check_defined

_VALID = (
    f"valid is a list of 1 to {MAX_ARRAY_SIZE:,} elements, each a dict of environment variables such as "
    "{'SEED': '7'}, or arguments such as ['--seed', 7] or '--seed 7'"
)


@dataclass(frozen=True)
class ArrayElement:
    """
    What differs in one element.

    :param env: environment variables, merged over the common ones.
    :param arguments: arguments that follow the common ones.
    """

    env: Mapping[str, Any] = field(default_factory=dict, repr=False)
    arguments: tuple[Any, ...] = ()


def parse_array(value: Any) -> list[ArrayElement]:
    """
    Parse the value of ``array``.

    :param value: a list, the output of a task that returned one, or the list as text, which a template gives.
    :raises InvalidJobError: it is not a list, has too few or too many elements, or has an invalid element; the message
        then names its index. The message holds no value of an environment variable.
    """
    elements = []
    for index, element in enumerate(listed(value)):
        with naming(index):
            elements.append(_element(element))
    return elements


def listed(value: Any) -> list[Any]:
    """
    Return the elements of ``array`` as they are written.

    :raises InvalidJobError: it is not a list, or has too few or too many elements.
    """
    check_defined("array", value)
    if isinstance(value, str):
        value = _from_template(value)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidJobError(f"array is a {type(value).__name__}; {_VALID}")
    written = list(value)
    if not 1 <= len(written) <= MAX_ARRAY_SIZE:
        raise InvalidJobError(f"array has {len(written):,} elements; {_VALID}")
    return written


@contextmanager
def naming(index: int) -> Iterator[None]:
    """Prefix an error with the index of its element."""
    try:
        yield
    except InvalidJobError as error:
        raise InvalidJobError(f"array[{index}]: {error}") from None


def _element(written: Any) -> ArrayElement:
    if isinstance(written, Mapping):
        return ArrayElement(env=dict(written))
    if isinstance(written, str):
        try:
            return ArrayElement(arguments=tuple(shlex.split(written)))
        except ValueError as error:
            raise InvalidJobError(f"{written!r} cannot be split into arguments: {error}") from None
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        return ArrayElement(arguments=(written,))
    if isinstance(written, (list, tuple)):
        return ArrayElement(arguments=tuple(written))
    raise InvalidJobError(f"it is a {type(written).__name__}; {_VALID}")


def _from_template(text: str) -> Any:
    """Read a list from the text that a template makes of it."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
