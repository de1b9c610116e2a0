"""
What Airflow's templates make of a parameter, as the value that its author means.

A template gives text, whatever it was given: ``None`` becomes ``"None"``, a list ``"['a', 'b']"``. With
``render_template_as_native_obj=True`` it gives values, whatever was written: the text ``"4090"`` becomes a number, and
a name that is not defined becomes an object that stands for it.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

import jinja2
from airflow.sdk.definitions._internal.mixins import ResolveMixin

from airflow_provider_gpu_cluster.exceptions import InvalidJobError


def check_defined(parameter: str, value: Any) -> None:
    """
    Refuse what stands for an undefined name of a template.

    :raises InvalidJobError: the value is one, or has one in it.
    """
    if isinstance(value, jinja2.Undefined):
        raise InvalidJobError(
            f"{parameter}: its template uses the name {value._undefined_name!r}, which is not defined; correct it, or "
            "give it a value, for instance among the params of the DAG"
        )
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_defined(f"{parameter}[{name!r}]", item)
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            check_defined(f"{parameter}[{position}]", item)


def is_open(value: Any) -> bool:
    """Return whether a value is known only when the task runs: a template, or the output of another task."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, (list, tuple)):
        return any(is_open(item) for item in value)
    if isinstance(value, Mapping):
        return any(is_open(item) for item in value.values())
    return isinstance(value, ResolveMixin)


def is_unset(value: Any) -> bool:
    """Return whether a value is None, empty text, or the text ``None``, as a template renders None."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


def as_text(value: Any) -> Any:
    """Return a number or a boolean as the text that it was; anything else unchanged."""
    return str(value) if isinstance(value, (Real, Decimal)) else value


def as_number(value: Any) -> Any:
    """Return a number without a fraction as a whole number, also when it is text; anything else unchanged."""
    if isinstance(value, str):
        text = value.strip()
        whole, point, fraction = text.partition(".")
        if point and fraction and not fraction.strip("0"):
            text = whole
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else value
    if isinstance(value, (Real, Decimal)) and not isinstance(value, (bool, int)):
        try:
            floor = math.floor(value)
        except (ValueError, ArithmeticError):  # NaN, and infinity
            return value
        return floor if floor == value else value
    return value


def as_list(value: Any) -> Any:
    """Return a list, also from the text of one and from the outputs of mapped tasks; anything else unchanged."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "("):
        value = _parsed(value, (list, tuple), value)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)) and not hasattr(value, "protocol"):
        return list(value)
    return value


def as_dict(value: Any) -> Any:
    """Return a dict, also from the text of one; anything else unchanged."""
    return _parsed(value, dict, value) if isinstance(value, str) else value


def flat(value: Any) -> list[Any]:
    """Return the items of a value and of all lists in it, without those that are unset."""
    if is_unset(value):
        return []
    value = as_list(value)
    if isinstance(value, list):
        return [one for item in value for one in flat(item)]
    return [value]


def _parsed(text: str, kinds: type | tuple[type, ...], otherwise: Any) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, kinds):
            return value
    return otherwise
