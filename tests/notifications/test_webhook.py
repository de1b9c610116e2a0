"""A webhook, against a real HTTP server on loopback."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.messages.message import JobMessage
from airflow_provider_gpu_cluster.notifications import webhook
from airflow_provider_gpu_cluster.notifications.receiver import Receiver, receiver_of
from airflow_provider_gpu_cluster.notifications.webhook import WebhookError, post, signed
from tests.conftest import REPOSITORY
from tests.servers.hooks import Hooks

DOCS = REPOSITORY / "docs/notifications.md"
MESSAGE = JobMessage(
    "failed", "failed", "job/1/failed", "Failed: job", "text", "chat", "<p>html</p>", {"event": "failed"}
)


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    hooks = Hooks()
    yield hooks
    hooks.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_LONGEST_PAUSE_S", 0.02)


def test_a_message_arrives_as_json_and_its_signature_can_be_checked(hooks: Hooks) -> None:
    before = time.time()
    post(MESSAGE, Receiver(hooks.url, "s3cret-of-the-hook", {"x-api-key": "k"}), try_for_s=5)
    ((path, headers, body, _),) = hooks.requests
    assert path == "/hooks/gpu?team=ml"
    assert json.loads(body) == MESSAGE.payload
    assert headers["content-type"] == "application/json"
    assert (headers["webhook-id"], headers["x-api-key"]) == ("job/1/failed", "k")
    assert before - 1 <= int(headers["webhook-timestamp"]) <= time.time()
    # What the documentation tells receivers to do.
    found: dict[str, Any] = {}
    exec(re.findall("```python\n(import base64, hmac.*?)```", DOCS.read_text(), re.DOTALL)[0], found)
    is_genuine = found["is_genuine"]
    assert is_genuine(headers, body, b"s3cret-of-the-hook")
    assert not is_genuine(headers, body, b"another")
    assert not is_genuine(headers, body + b" ", b"s3cret-of-the-hook")
    assert not is_genuine({**headers, "webhook-id": "job/2/failed"}, body, b"s3cret-of-the-hook")
    late = {**headers, **signed("job/1/failed", body, "s3cret-of-the-hook", now=time.time() - 301)}
    assert not is_genuine(late, body, b"s3cret-of-the-hook")


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of https://github.com/standard-webhooks/standard-webhooks."""
    headers = signed(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now=1614265330.9,
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_without_a_secret_nothing_is_signed(hooks: Hooks) -> None:
    post(MESSAGE, Receiver(hooks.url), try_for_s=5)
    assert "webhook-signature" not in hooks.requests[0][1]


@pytest.mark.parametrize("code", [503, 429])
def test_what_may_pass_is_tried_again_with_the_same_id(hooks: Hooks, code: int) -> None:
    hooks.answers = [(code, {}), (code, {}), (204, {})]
    post(MESSAGE, Receiver(hooks.url), try_for_s=10)
    assert [headers["webhook-id"] for _, headers, _, _ in hooks.requests] == ["job/1/failed"] * 3


def test_it_waits_as_long_as_the_receiver_asks(hooks: Hooks) -> None:
    hooks.answers = [(429, {"Retry-After": "0.3"}), (200, {})]
    post(MESSAGE, Receiver(hooks.url), try_for_s=10)
    first, second = (at for _, _, _, at in hooks.requests)
    assert second - first >= 0.3


def test_a_receiver_may_name_a_date() -> None:
    later = datetime.now(timezone.utc) + timedelta(minutes=1)
    assert 50 < (webhook._after_s(format_datetime(later, usegmt=True)) or 0) <= 60
    assert webhook._after_s(format_datetime(later - timedelta(hours=1), usegmt=True)) == 0.1
    assert webhook._after_s("soon") is webhook._after_s(None) is None


def test_a_receiver_that_asks_for_more_time_than_there_is_is_given_up_at_once(hooks: Hooks) -> None:
    hooks.answers = [(429, {"Retry-After": "3600"})]
    began = time.monotonic()
    with pytest.raises(WebhookError, match=r"webhook 127.0.0.1: it answers 429; it was tried for as long as 5 s"):
        post(MESSAGE, Receiver(hooks.url), try_for_s=5)
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("code", [401, 410])
def test_what_will_not_pass_is_not_tried_again(hooks: Hooks, code: int) -> None:
    hooks.answers = [(code, {})]
    with pytest.raises(WebhookError, match=f"it answers {code}, and takes no such message; check its address"):
        post(MESSAGE, Receiver(hooks.url), try_for_s=5)
    assert len(hooks.requests) == 1


@pytest.mark.parametrize("code", [302, 308])
def test_the_body_does_not_follow_a_redirect(hooks: Hooks, code: int) -> None:
    elsewhere = Hooks()
    hooks.answers = [(code, {"Location": elsewhere.url.replace("127.0.0.1", "localhost")})]
    with pytest.raises(WebhookError, match=f"it answers {code}, and points to localhost; .* give the final address"):
        post(MESSAGE, Receiver(hooks.url), try_for_s=5)
    elsewhere.close()
    assert elsewhere.requests == []


def test_a_receiver_that_never_answers_is_given_up(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_TIMEOUT", 0.1)
    hooks.answers = [(None, {})]
    with pytest.raises(WebhookError, match=r"it did not answer in time; it was tried for as long as 0.3 s"):
        post(MESSAGE, Receiver(hooks.url), try_for_s=0.3)


def test_a_receiver_that_is_not_there_is_tried_again(hooks: Hooks) -> None:
    hooks.close()
    with pytest.raises(WebhookError, match="refused"):
        post(MESSAGE, Receiver(hooks.url), try_for_s=0.1)


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path))
    hooks = Hooks(tls=context)
    began = time.monotonic()
    with pytest.raises(WebhookError, match=r"its certificate is not trusted .* SSL_CERT_FILE"):
        post(MESSAGE, Receiver(hooks.url, "s3cret-of-the-hook"), try_for_s=30)
    hooks.close()
    assert hooks.requests == []
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        ({"host": "example.org/hooks/gpu"}, "https://example.org/hooks/gpu"),
        ({"host": "https://example.org/hooks", "port": 8443}, "https://example.org:8443/hooks"),
        ({"host": "https://example.org:1/hooks", "port": 8443}, "https://example.org:1/hooks"),
        ({"host": "127.0.0.1", "schema": "http", "port": 80}, "http://127.0.0.1:80"),
        ({"host": "http://[::1]/x", "port": 80}, "http://[::1]:80/x"),
    ],
)
def test_a_connection_gives_address_secret_and_headers(
    connection: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = {"conn_type": "http", "password": "s3cret-of-the-hook", "extra": {"headers": {"x-api-key": "k" * 9}}}
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", json.dumps(rest | connection))
    receiver = receiver_of("hook", None, None)
    assert receiver == Receiver(url, "s3cret-of-the-hook", {"x-api-key": "k" * 9})
    assert "s3cret" not in repr(receiver)
    assert "hooks" not in f"{receiver!r} {receiver}"


@pytest.mark.parametrize("url", ["", "example.org", "ftp://a.org", "https://", "http://[::1", "http://a:b:c", None, 5])
def test_what_is_no_address_is_refused(url: Any) -> None:
    with pytest.raises(InvalidJobError, match="webhook_url gives no address of a webhook"):
        receiver_of(None, url, None)


def _self_signed(folder: Path) -> Path:
    """Make a certificate for this server that no authority has signed, together with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(private + certificate.public_bytes(pem))
    return path
