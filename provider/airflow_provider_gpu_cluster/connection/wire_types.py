"""
Checks values from a cluster against the types of the protocol, before anything else touches them.

What is required must be there and be of its type. An optional field of another type counts as missing: a job may have
written into the record that it comes from, and must not spoil what is known of other jobs.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from airflow_provider_gpu_cluster.connection.words import cleaned

# What fits into a column of a database.
_LARGEST = 1 << 63
_Check = Callable[[Any], Any]


class WrongType(ValueError):
    """A value is not what the protocol says; the text says where and why."""


def checked(value: Any, kind: Any) -> Any:
    """
    Return a value from a cluster, without optional fields that are of another type.

    :param kind: a type of :mod:`.gpu_run.protocol`.
    :raises WrongType: it is not of that type.
    """
    return _check(kind)(value)


@cache
def _check(kind: Any) -> _Check:
    origin = get_origin(kind)
    if kind is Any:
        return lambda value: value
    if is_typeddict(kind):
        # Not before it is needed, as a type may contain itself.
        return lambda value: _fields_check(kind)(value)
    if origin is list:
        return _items_check(_check(get_args(kind)[0]))
    if origin in (Union, types.UnionType):
        return _any_check([_check(one) for one in get_args(kind)])
    if origin is Literal:
        return _test(lambda value: value in get_args(kind) and isinstance(value, str), f"one of {get_args(kind)}")
    return _test(*_TESTS[origin or kind])


def _test(is_right: Callable[[Any], bool], words: str) -> _Check:
    def check(value: Any) -> Any:
        if not is_right(value):
            raise WrongType(f"{cleaned(repr(value)[:60])} is not {words}")
        return value

    return check


def _is_whole(value: Any) -> bool:
    return type(value) is int and -_LARGEST <= value < _LARGEST


_TESTS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: isinstance(value, str), "a text"),
    int: (_is_whole, "a whole number"),
    float: (lambda value: _is_whole(value) or (isinstance(value, float) and math.isfinite(value)), "a number"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    dict: (lambda value: isinstance(value, dict), "an object"),
    type(None): (lambda value: value is None, "null"),
}


@cache
def _fields_check(kind: Any) -> _Check:
    hints = get_type_hints(kind)
    required = {name: _check(hints[name]) for name in hints if name in kind.__required_keys__}
    optional = {name: _check(hints[name]) for name in hints if name not in required}

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise WrongType(f"{cleaned(repr(value)[:60])} is not an object")
        found = dict(value)
        for name, field in required.items():
            if name not in value:
                raise WrongType(f"{name} is missing")
            try:
                found[name] = field(value[name])
            except WrongType as error:
                raise WrongType(f"{name}: {error}") from None
        for name, field in optional.items():
            if name in value:
                try:
                    found[name] = field(value[name])
                except WrongType:
                    del found[name]
        return found

    return check


def _items_check(item: _Check) -> _Check:
    def check(value: Any) -> Any:
        if not isinstance(value, list):
            raise WrongType(f"{cleaned(repr(value)[:60])} is not a list")
        return [item(one) for one in value]

    return check


def _any_check(checks: list[_Check]) -> _Check:
    def check(value: Any) -> Any:
        for one in checks:
            try:
                return one(value)
            except WrongType as error:
                last = error
        raise last

    return check
