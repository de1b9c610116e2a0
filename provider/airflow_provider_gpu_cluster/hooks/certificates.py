"""OpenSSH certificates: a key, signed by an authority, for a time and for names."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timezone

import paramiko
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType

from airflow_provider_gpu_cluster.hooks.private_keys import UnusableKey

CERTIFICATE_SUFFIX = "-cert.pub"
_FOREVER = (1 << 64) - 1


def add_certificate(key: paramiko.PKey, path: str) -> SSHCertificate:
    """
    Give a user's key the certificate in a file, and return it.

    :raises UnusableKey: the file has none, or one of another key or of a host.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            line = file.read(1 << 16).strip()
    except (OSError, ValueError) as error:
        raise UnusableKey(f"cannot be read on {socket.gethostname()}: {getattr(error, 'strerror', error)}") from None
    try:
        certificate = _certificate(line)
    except ValueError as error:
        raise UnusableKey(f"is no OpenSSH certificate ({error}); `ssh-keygen -L -f {path}` shows what it is") from None
    if certificate.type is not SSHCertificateType.USER:
        raise UnusableKey("is a certificate of a host, not of a user")
    if _blob(certificate.public_key()) != key.asbytes():
        raise UnusableKey("is the certificate of another key")
    key.load_certificate(line.decode(errors="replace"))
    return certificate


def host_certificate(key: paramiko.PKey) -> SSHCertificate | None:
    """Return the certificate that a host has shown with its key, or None."""
    shown = key.public_blob
    if shown is None:
        return None
    try:
        return _certificate(shown.key_type.encode() + b" " + base64.b64encode(shown.key_blob))
    except ValueError:
        return None


def objections_to_host(
    certificate: SSHCertificate, matches: Callable[[str], bool], authorities: Collection[str]
) -> Iterator[str]:
    """
    Yield what keeps the certificate of a host from being good.

    :param matches: whether a name in it stands for the host.
    :param authorities: fingerprints of those whom we trust.
    """
    if signer_of(certificate) not in authorities:
        yield f"it is signed by {signer_of(certificate)}, which known_hosts does not trust"
    try:
        certificate.verify_cert_signature()
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        yield "its signature is wrong"
    if certificate.type is not SSHCertificateType.HOST:
        yield "it is no certificate of a host"
    if certificate.critical_options:
        yield "it has critical options, which no certificate of a host may have"
    yield from _objections_to_time(certificate)
    names = _names(certificate)
    if not any(matches(name) for name in names):
        yield f"it is for {', '.join(names) or 'no name'}"


def objections_to_user(certificate: SSHCertificate, user: str) -> Iterator[str]:
    """Yield what may keep a user's certificate from being accepted, as far as that can be seen here."""
    yield from _objections_to_time(certificate)
    names = _names(certificate)
    if user not in names:
        yield f"it is for {' and '.join(names) or 'nobody'}, and the login is {user}"


def signer_of(certificate: SSHCertificate) -> str:
    """Return the fingerprint of the authority that signed it."""
    digest = hashlib.sha256(_blob(certificate.signature_key())).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _certificate(line: bytes) -> SSHCertificate:
    try:
        found = serialization.load_ssh_public_identity(line)
    except (UnsupportedAlgorithm, ValueError) as error:
        raise ValueError(str(error) or "it cannot be read") from None
    if not isinstance(found, SSHCertificate):
        raise ValueError("it is a public key")
    return found


def _objections_to_time(certificate: SSHCertificate) -> Iterator[str]:
    now = time.time()
    if certificate.valid_before != _FOREVER and now >= certificate.valid_before:
        yield f"it was valid until {_date(certificate.valid_before)}"
    if now < certificate.valid_after:
        yield f"it is valid only from {_date(certificate.valid_after)}"


def _date(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return f"second {seconds}"


def _names(certificate: SSHCertificate) -> list[str]:
    return [name.decode(errors="replace") for name in certificate.valid_principals]


def _blob(key: serialization.SSHPublicKeyTypes) -> bytes:
    """Return a public key as SSH transmits it."""
    form = serialization.PublicFormat.OpenSSH
    return base64.b64decode(key.public_bytes(serialization.Encoding.OpenSSH, form).split()[1])
