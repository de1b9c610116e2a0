"""
Airflow's own notifiers, as carriers of a message: which of their fields gets which part of it, and how they go through
a trigger's arguments.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from pkgutil import resolve_name
from typing import Any, TypeAlias

from airflow.sdk import BaseNotifier
from airflow.sdk.log import redact  # type: ignore[attr-defined]

from airflow_provider_gpu_cluster.connection.words import words_of
from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.messages.message import JobMessage

CONTEXT_NAME = "gpu_job"
"""The name under which templates of a notifier find the message."""

# A field that its user has not given gets this part of the message. The first row with the beginning of the class's
# name, or without one, counts.
FIELDS: tuple[tuple[str, str, str], ...] = (
    ("Slack", "text", "slack"),
    ("Discord", "text", "short"),
    ("", "text", "text"),
    ("", "body", "text"),
    ("", "message", "text"),
    ("", "message_body", "json"),
    ("", "html_content", "html"),
    ("", "subject", "subject"),
    ("", "title", "subject"),
    ("", "summary", "subject"),
)

# What Airflow calls the modules that it makes of files of DAGs.
_MODULES_OF_DAGS = ("unusual_prefix_", "__main__")

Carrier: TypeAlias = "BaseNotifier | tuple[str, Mapping[str, Any]]"


def carriers_of(via: Any) -> tuple[BaseNotifier, ...]:
    """
    Return the notifiers that are given, one or several.

    :raises InvalidJobError: one of them is none.
    """
    if via is None:
        return ()
    is_one = isinstance(via, (BaseNotifier, str)) or (isinstance(via, Sequence) and via and isinstance(via[0], str))
    given = [via] if is_one or not isinstance(via, Iterable) else list(via)
    return tuple(carrier_of(value) for value in given)


def carrier_of(value: Any) -> BaseNotifier:
    """
    Return a notifier that is given as itself, or as the path of its class and its arguments.

    :raises InvalidJobError: it is none.
    """
    if isinstance(value, BaseNotifier):
        return value
    path, arguments = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, None)
    if isinstance(path, str) and isinstance(arguments, Mapping):
        try:
            # In this form, what is wrong with the module is told.
            made = resolve_name(":".join(path.rsplit(".", 1)))(**arguments)
        except Exception as error:
            raise InvalidJobError(f"via: {path} cannot be made of {sorted(arguments)}: {words_of(error)}") from error
        if isinstance(made, BaseNotifier):
            return made
        raise InvalidJobError(f"via: {path} is not a notifier of Airflow (a BaseNotifier)")
    raise InvalidJobError(
        f"via is a notifier of Airflow, such as SmtpNotifier(to=...), or the path of its class with its arguments; "
        f"not a {type(value).__name__}"
    )


def send(carrier: BaseNotifier, message: JobMessage, context: Mapping[str, Any]) -> None:
    """Let a notifier send a message; its own templates find it as ``gpu_job``."""
    # Rendering changes a notifier for good, and it may be needed again.
    filled = copy.copy(carrier)
    for field, part in parts_of(carrier).items():
        setattr(filled, field, f"{{{{ {CONTEXT_NAME}.{part} }}}}")
    filled({**context, CONTEXT_NAME: message})


def parts_of(carrier: BaseNotifier) -> dict[str, str]:
    """Return which fields of a notifier get which part of a message: those that its user has not given."""
    kind = type(carrier)
    given = inspect.signature(kind.__init__).parameters
    found: dict[str, str] = {}
    for name, field, part in FIELDS:
        if field in found or field not in carrier.template_fields or not kind.__name__.startswith(name):
            continue
        default = given[field].default if field in given else None
        if getattr(carrier, field, None) in (None, "", default):
            found[field] = part
    return found


def identity_of(carrier: BaseNotifier) -> list[Any]:
    """Return what tells a notifier from others: its class, and those of its arguments that are plain values."""
    path, arguments = _arguments(carrier)
    plain = {name: value for name, value in arguments.items() if isinstance(value, (str, int, list, tuple, dict))}
    return [path, json.loads(json.dumps(plain, default=lambda value: type(value).__name__, skipkeys=True))]


def written(carrier: BaseNotifier) -> list[Any]:
    """
    Return a notifier as the path of its class and its arguments, as JSON values, from which it can be made again.

    :raises InvalidJobError: it cannot, or an argument is a secret, which must not be stored with a trigger.
    """
    kind = type(carrier)
    path, arguments = _arguments(carrier)
    if path.startswith(_MODULES_OF_DAGS) or "<locals>" in path:
        raise InvalidJobError(
            f"via: {kind.__qualname__} is defined in a file of DAGs, where triggerers do not find it; define it in a "
            "module that they can import"
        )
    for name, value in arguments.items():
        try:
            arguments[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            raise InvalidJobError(
                f"via: {name} of {kind.__name__} is a {type(value).__name__}, which cannot be kept with a trigger; "
                "notifiers that a trigger sends take plain values"
            ) from None
        if redact(value, name, max_depth=20) != value:
            raise InvalidJobError(
                f"via: {name} of {kind.__name__} is a secret, which must not be stored with a trigger; put it into a "
                "connection, and give the connection's id"
            )
    carrier_of((path, arguments))
    return [path, arguments]


def _arguments(carrier: BaseNotifier) -> tuple[str, dict[str, Any]]:
    """Return the path of a notifier's class, and those of its arguments that are not the default."""
    kind = type(carrier)
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name == "self" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        value = getattr(carrier, name, parameter.default)
        if value is not parameter.default and value != parameter.default and name != "context":
            arguments[name] = value
    return f"{kind.__module__}.{kind.__qualname__}", arguments
