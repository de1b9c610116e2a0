"""A function of a DAG that chooses a cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class PolicyFunction:
    """
    A function in a field that Airflow renders. Airflow would call a function there itself, with its context.

    :param function: takes the offers that fit, and returns one of them, or the id of its connection.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    @classmethod
    def of(cls, policy: Any) -> Any:
        """Return a policy as a field that is rendered may have it: a word, a template, or one of these."""
        return cls(policy) if callable(policy) else policy

    def serialize(self) -> str:
        """Return what the serialized DAG and the UI show: its name."""
        return name_of(self.function)


def name_of(function: object) -> str:
    """Return the name of a function, or of an object that can be called, with its module."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if module else str(name)
