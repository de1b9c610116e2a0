"""The secrets that Airflow masks in a task's log, as far as a job gets them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow.sdk.log import mask_secret, redact  # type: ignore[attr-defined]

SHORTEST_SECRET = 5
"""Characters; Airflow masks nothing shorter."""


def mask_variables(variables: Mapping[str, str]) -> None:
    """Tell Airflow which environment variables to mask: those whose names look like that of a secret."""
    for name, value in variables.items():
        if len(value) >= SHORTEST_SECRET:
            mask_secret(value, name)
            # A log is masked line by line.
            for line in _lines(value):
                mask_secret(line, name)


def secrets_in(variables: Mapping[str, str], *others: Any) -> set[str]:
    """
    Return the secrets that Airflow knows in what a job gets.

    :param variables: environment variables, after :func:`mask_variables`.
    :param others: other values, of any kind.
    """
    found: set[str] = set()

    def note(match: Any) -> str:
        found.add(match[0])
        return "***"

    for text in _texts([*variables.values(), *others]):
        # It replaces by a regular expression's `sub`, which takes a function, too.
        redact(text, replacement=note)  # type: ignore[arg-type]
    for name, value in variables.items():
        if redact("", name) and len(value) >= SHORTEST_SECRET and redact(value) != value:
            found.add(value)
    return {secret for one in found for secret in (one, *_lines(one))}


def _lines(value: str) -> Iterator[str]:
    lines = value.splitlines()
    return (line.strip() for line in lines if len(lines) > 1 and len(line.strip()) >= SHORTEST_SECRET)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for item in value:
            yield from _texts(item)
