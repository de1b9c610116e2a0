"""
A webhook: one POST request with the message as JSON, signed as https://www.standardwebhooks.com/ describes.

It is tried again when that may help, and its body goes to no other address than the given one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import tenacity

from airflow_provider_gpu_cluster import __version__
from airflow_provider_gpu_cluster.connection.words import cleaned, words_of
from airflow_provider_gpu_cluster.exceptions import GpuClusterError
from airflow_provider_gpu_cluster.messages.message import JobMessage
from airflow_provider_gpu_cluster.notifications.receiver import Receiver

_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_LONGEST_PAUSE_S = 15.0
_TOO_MANY_REQUESTS = 429
_TOO_EARLY = (408, 425)


class WebhookError(GpuClusterError):
    """A webhook did not take a message."""


class _Again(Exception):
    """It may take the message later."""

    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


def post(message: JobMessage, receiver: Receiver, *, try_for_s: float) -> None:
    """
    Send a message to a webhook.

    :param try_for_s: how long to try, in seconds.
    :raises WebhookError: it was not taken.
    """
    body = message.json.encode()
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Again),
        wait=_pause,
        stop=tenacity.stop_before_delay(try_for_s),
        reraise=True,
    )
    try:
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
            retrying(_post_once, client, receiver, message.event_id, body)
    except _Again as error:
        raise WebhookError(f"{receiver}: {error}; it was tried for as long as {try_for_s:g} s") from None


def signed(event_id: str, body: bytes, secret: str, *, now: float) -> dict[str, str]:
    """Return the headers of a request: id of the event, time, and, with a secret, a signature of both and the body."""
    headers = {"webhook-id": event_id, "webhook-timestamp": str(int(now))}
    if secret:
        content = b".".join((event_id.encode(), headers["webhook-timestamp"].encode(), body))
        digest = hmac.new(_key(secret), content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _post_once(client: httpx.Client, receiver: Receiver, event_id: str, body: bytes) -> None:
    headers = {
        "content-type": "application/json",
        "user-agent": f"airflow-provider-gpu-cluster/{__version__}",
        **receiver.headers,
        **signed(event_id, body, receiver.secret, now=time.time()),
    }
    try:
        # What it answers beside the status is not read: it may be without end.
        with client.stream("POST", receiver.url, content=body, headers=headers) as response:
            _check(receiver, response)
    except httpx.TimeoutException:
        raise _Again("it did not answer in time") from None
    except (httpx.TransportError, OSError) as error:
        if _is_of_certificate(error):
            raise WebhookError(
                f"{receiver}: its certificate is not trusted ({words_of(error)}); have it corrected, or name the "
                "authority's file in SSL_CERT_FILE"
            ) from None
        raise _Again(words_of(error)) from None
    except (httpx.InvalidURL, ValueError) as error:
        raise WebhookError(f"{receiver}: the request cannot be made: {words_of(error)}") from None


def _check(receiver: Receiver, response: httpx.Response) -> None:
    code = response.status_code
    if response.is_success:
        return
    if code == _TOO_MANY_REQUESTS or code in _TOO_EARLY or code >= 500:
        raise _Again(f"it answers {code}", _after_s(response.headers.get("Retry-After")))
    if response.has_redirect_location or 300 <= code < 400:
        where = _host_of(response.headers.get("Location", ""))
        raise WebhookError(
            f"{receiver}: it answers {code}, and points to {where}; messages are not sent on, so give the final address"
        )
    raise WebhookError(f"{receiver}: it answers {code}, and takes no such message; check its address and its secret")


def _host_of(url: str) -> str:
    try:
        return cleaned(urlsplit(url).hostname or "another address", 200)
    except ValueError:
        return "another address"


def _key(secret: str) -> bytes:
    """Return the key of a secret; those of Standard Webhooks begin with ``whsec_`` and are in base64."""
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _Again) and error.after_s is not None:
        return error.after_s
    return tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE_S)(state)


def _after_s(text: str | None) -> float | None:
    """Return what ``Retry-After`` says, in seconds: it is a number, or a date."""
    try:
        return max(float(text or ""), 0.1)
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max((when - datetime.now(timezone.utc)).total_seconds(), 0.1)


def _is_of_certificate(error: BaseException | None) -> bool:
    return error is not None and (
        "CERTIFICATE_VERIFY_FAILED" in str(error) or _is_of_certificate(error.__cause__ or error.__context__)
    )
