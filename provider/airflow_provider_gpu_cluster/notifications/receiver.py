"""The receiver of a webhook: its address and its secret, neither of which may show in a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from airflow.sdk.log import mask_secret

from airflow_provider_gpu_cluster.exceptions import InvalidJobError

# A path as short as this is none that lets anybody send who knows it, and to mask it would spoil logs.
_SHORTEST_SECRET_PATH = 24


@dataclass(frozen=True)
class Receiver:
    """
    The receiver of a webhook.

    :param url: its address, with all that it needs.
    :param secret: with which requests are signed; empty for none.
    :param headers: further headers, such as one by which a gateway lets a request pass.
    """

    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        # An address may hold a secret in its path or query.
        return f"webhook {urlsplit(self.url).hostname}"


def receiver_of(conn_id: str | None, url: str | None, secret: str | None) -> Receiver:
    """
    Return the receiver that a connection describes, or an address.

    A connection has the address as its host, with or without ``https://`` and a path, and the secret as its password;
    ``headers`` in its extra are sent as well.

    :raises InvalidJobError: that is no address.
    """
    if conn_id is None:
        return Receiver(checked_url(url, "webhook_url"), secret or "")
    from airflow_provider_gpu_cluster.hooks.airflow_outage import connection_of

    connection = connection_of(conn_id)
    url = checked_url(_address(connection), f"connection {conn_id}")
    given = connection.extra_dejson.get("headers")
    headers = {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {}
    for value in (*headers.values(), connection.password, _path_of(url)):
        hide_secret(value)
    return Receiver(url, connection.password or "", headers)


def checked_url(url: Any, where: str) -> str:
    """
    Return an address of a webhook.

    :raises InvalidJobError: it is none.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return str(url)
    except (ValueError, TypeError, AttributeError):
        pass
    raise InvalidJobError(f"{where} gives no address of a webhook; give one such as https://example.org/hooks/gpu")


def storable_url(url: str) -> str:
    """
    Return an address that may be stored with a trigger.

    :raises InvalidJobError: it has a password or a query, which are often secret.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        raise InvalidJobError(
            "webhook_url has a password or a query, which must not be stored with a trigger: put the address into a "
            "connection, and give its id as webhook_conn_id"
        )
    return url


def hide_secret(secret: str | None) -> None:
    """Have Airflow mask a secret in logs."""
    if secret:
        mask_secret(secret)


def _address(connection: Any) -> str:
    """Return the address that a connection gives, as Airflow's own HTTP hook reads it, but https by default."""
    host = connection.host or ""
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    parts = urlsplit(host)
    if connection.port and parts.hostname and ":" not in parts.netloc.rpartition("]")[2]:
        parts = parts._replace(netloc=f"{parts.netloc}:{connection.port}")
    return urlunsplit(parts)


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return path if len(path) >= _SHORTEST_SECRET_PATH else ""
