"""The fields of an Airflow Connection: which there may be, and values of the right type."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterSetupError
from airflow_provider_gpu_cluster.get_provider_info import get_provider_info
from airflow_provider_gpu_cluster.gpu_run.protocol import durations
from airflow_provider_gpu_cluster.gpu_run.protocol.budgets import ALL, EACH, KINDS

if TYPE_CHECKING:
    from airflow.sdk import Connection

_FORMS = {one["connection-type"]: frozenset(one["conn-fields"]) for one in get_provider_info()["connection-types"]}
# What Airflow's own ssh connections have besides, so that a copy of one works. The last two mean nothing here.
_OF_SSH_CONNECTIONS = frozenset(
    (
        "allow_host_key_change",
        "ciphers",
        "disabled_algorithms",
        "ignore_hostkey_verification",
        "known_hosts",
        "look_for_keys",
        "passphrase",
        "cmd_timeout",
        "timeout",
    )
)
KNOWN_FIELDS = _FORMS["gpu_cluster"] | _OF_SSH_CONNECTIONS
POOL_FIELDS = _FORMS["gpu_cluster_pool"]
_COLUMNS = ("host", "port", "login", "password", "schema", "conn_type")
_PREFIXES = ("extra__gpu_cluster__", "extra__ssh__")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


class Fields:
    """
    The fields in the extra of a connection.

    :param connection: the connection.
    :raises GpuClusterSetupError: its extra is not a JSON object.
    """

    def __init__(self, connection: Connection) -> None:
        self.conn_id = connection.conn_id
        self._type = connection.conn_type
        try:
            is_object = isinstance(json.loads(connection.extra or "{}"), dict)
        except ValueError as error:
            raise GpuClusterSetupError(f"connection {self.conn_id}: its extra is not valid JSON: {error}") from None
        if not is_object:
            raise GpuClusterSetupError(
                f'connection {self.conn_id}: its extra must be a JSON object, such as {{"key_file": "/keys/gpu01"}}'
            )
        # Reading it this way keeps its secrets out of the log.
        self._values: dict[str, Any] = {}
        for name, value in connection.extra_dejson.items():
            # Forms of older versions of Airflow named the connection's type as well, and left empty fields there.
            prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
            if not prefix or (value not in (None, "") and name[len(prefix) :] not in connection.extra_dejson):
                self._values[name[len(prefix) :]] = value

    def refuse_unknown(self, known: frozenset[str] = KNOWN_FIELDS) -> None:
        """
        Raise if there is a field that means nothing, because its value was meant to mean something.

        :param known: the fields that mean something.
        :raises GpuClusterSetupError: there is one; all are named, each with the nearest good name.
        """
        unknown = [self._unknown(name, known) for name in self._values if name not in known]
        if unknown:
            raise GpuClusterSetupError(
                f"connection {self.conn_id}: its extra has {'a field' if len(unknown) == 1 else 'fields'} that the "
                f"provider does not know: {', '.join(unknown)}. Correct or remove "
                f"{'it' if len(unknown) == 1 else 'them'}; docs/connections.md lists all fields"
            )

    def _unknown(self, name: str, known: frozenset[str]) -> str:
        if name.lower() in _COLUMNS:
            return f"{name} (it is a field of the connection itself, beside the extra)"
        if name in POOL_FIELDS:
            # Airflow finds no type in a URI that begins with one that has an underscore.
            return f"{name} (of the type gpu_cluster_pool, in a URI gpu-cluster-pool; this one's is {self._type!r})"
        nearest = difflib.get_close_matches(name.lower(), sorted(known), n=1)
        return f"{name} (did you mean {nearest[0]}?)" if nearest else name

    def given(self, field: str) -> Any:
        """Return the value of a field; None if it is empty."""
        value = self._values.get(field)
        return None if value == "" else value

    def text(self, field: str) -> str | None:
        """Return one line of text."""
        value = self.given(field)
        if value is None:
            return None
        if not isinstance(value, str) or "\n" in value or "\0" in value:
            raise self.bad(field, value, "one line of text")
        return value.strip() or None

    def secret_text(self, field: str) -> str | None:
        """Return text of any form, which no error shows."""
        value = self.given(field)
        if value is not None and not isinstance(value, str):
            raise GpuClusterSetupError(
                f"connection {self.conn_id}: field {field} is of type {type(value).__name__}; it must be text"
            )
        return value

    def flag(self, field: str) -> bool | None:
        """Return whether it is true."""
        value = self.given(field)
        if value is None or isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word not in _TRUE + _FALSE:
            raise self.bad(field, value, "true or false")
        return word in _TRUE

    def count(self, field: str) -> int | None:
        """Return a whole number of things."""
        value = self.given(field)
        if value is None:
            return None
        try:
            number = int(str(value))
        except ValueError:
            number = 0
        if isinstance(value, bool) or number < 1:
            raise self.bad(field, value, "a whole number, 1 or more, or empty")
        return number

    def seconds(self, field: str) -> float | None:
        """Return a number of seconds."""
        number = self._number(field)
        if number is not None and not 0 < number < float("inf"):
            raise self.bad(field, self.given(field), "a number of seconds, more than 0, or empty")
        return number

    def duration(self, field: str) -> float | None:
        """Return a duration, in seconds."""
        value = self.given(field)
        if value is None:
            return None
        try:
            return durations.seconds_of(value)
        except ValueError:
            raise self.bad(field, value, f"{durations.VALID}, or empty") from None

    def percent(self, field: str) -> float | None:
        """Return a number from 0 to 100."""
        number = self._number(field)
        if number is not None and not 0 <= number <= 100:
            raise self.bad(field, self.given(field), "a number from 0 to 100, in percent, or empty")
        return number

    def above_zero(self, field: str) -> float | None:
        """Return a number above 0."""
        number = self._number(field)
        if number is not None and not 0 < number < float("inf"):
            raise self.bad(field, self.given(field), "a number above 0, such as 2, or empty")
        return number

    def price(self, field: str) -> float | None:
        """Return a price, which may be 0."""
        number = self._number(field)
        if number is not None and not 0 <= number < float("inf"):
            raise self.bad(field, self.given(field), "a number from 0 up, such as 2.5, or empty")
        return number

    def _number(self, field: str) -> float | None:
        """Return a number; NaN for what is none, and None if the field is empty."""
        value = self.given(field)
        if value is None:
            return None
        try:
            return float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            return float("nan")

    def one_of(self, field: str, words: tuple[str, ...]) -> str | None:
        """Return one of a few words."""
        word = self.text(field)
        if word is not None and word not in words:
            raise self.bad(field, word, f"one of: {', '.join(words)}; or empty")
        return word

    def gpu_hours(self, field: str) -> dict[str, float] | None:
        """Return numbers of GPU-hours by whom they are for, which may be written as text in JSON."""
        value = self.given(field)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = False
        if value is None:
            return None
        if not (isinstance(value, dict) and all(_is_budget(*item) for item in value.items())):
            raise self.bad(
                field,
                self.given(field),
                'an object of GPU-hours a month, such as {"dag:nightly": 40, "user:*": 200, "all": 1000}; its names '
                "begin with dag:, user: or owner:, and * alone is each of them",
            )
        return {name: float(hours) for name, hours in value.items()}

    def names(self, field: str) -> list[str]:
        """Return a list of names, which may be written as text with commas."""
        value = self.given(field)
        if isinstance(value, str):
            return [name.strip() for name in value.split(",") if name.strip()]
        if value is not None and not _is_names(value):
            raise self.bad(field, value, "a list of names, or names with commas between them")
        return value or []

    def lists_of_names(self, field: str) -> dict[str, list[str]]:
        """Return an object of lists of names, which may be written as text in JSON."""
        value = self.given(field)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = False
        if value is not None and not (isinstance(value, dict) and all(map(_is_names, value.values()))):
            raise self.bad(field, self.given(field), 'an object of lists, such as {"pubkeys": ["rsa-sha2-512"]}')
        return dict(value or {})

    def bad(self, field: str, value: object, valid: str) -> GpuClusterSetupError:
        """Return the error for an invalid field."""
        return GpuClusterSetupError(f"connection {self.conn_id}: field {field} is {value!r}; it must be {valid}")


def _is_budget(name: str, hours: object) -> bool:
    kind, _, of = name.partition(":")
    # A pattern would never match, and nobody would notice.
    is_named = name == ALL or (kind in KINDS and bool(of) and (of == EACH or EACH not in of))
    return is_named and isinstance(hours, (int, float)) and not isinstance(hours, bool) and 0 <= hours < float("inf")


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
