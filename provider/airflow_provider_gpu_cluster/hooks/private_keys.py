"""Private keys in all the forms in which people have and paste them."""

from __future__ import annotations

import base64
import binascii
import os
import re
import socket
import textwrap
from collections.abc import Callable
from io import StringIO

import paramiko
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_BLOCK = re.compile(r"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
# How the traditional form says that a key is encrypted.
_PEM_HEADERS = re.compile(r"\s*(Proc-Type: ?4,ENCRYPTED)\s+(DEK-Info: ?[\w-]+,[0-9A-Fa-f]+)\s+")
_PUBLIC = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-\S+ AAAA|-+ ?BEGIN (\w+ )*(PUBLIC KEY|CERTIFICATE)")
_OPENSSH = "OPENSSH PRIVATE KEY"
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_LARGEST_BYTES = 1 << 20
_KINDS = "an RSA, ECDSA or Ed25519 private key"


class UnusableKey(Exception):
    """What is wrong with a key, as the end of a sentence that begins with where it was found."""


def read_key_file(path: str, passphrase: str | None) -> paramiko.PKey:
    """
    Read a private key from a file on this machine.

    :raises UnusableKey: there is none that can be used.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            text = file.read(_LARGEST_BYTES).decode(errors="replace")
    except (OSError, ValueError) as error:
        raise UnusableKey(
            f"cannot be read on {socket.gethostname()}: {getattr(error, 'strerror', None) or error}; "
            "put it there for the user that runs Airflow, or put its text into the field private_key"
        ) from None
    return parse_key(text, passphrase)


def parse_key(text: str, passphrase: str | None) -> paramiko.PKey:
    """
    Read a private key.

    :raises UnusableKey: it is none that can be used.
    """
    text = text.replace("\\r", "\r").replace("\\n", "\n").replace("\r", "\n").strip().strip("\"'")
    block = _BLOCK.search(text)
    if block is None:
        return _without_frame(text, passphrase)
    kind, body = block.groups()
    data = f"-----BEGIN {kind}-----\n{_wrapped(body)}\n-----END {kind}-----\n".encode()
    load = serialization.load_ssh_private_key if kind == _OPENSSH else serialization.load_pem_private_key
    return _loaded(load, data, passphrase)


def _wrapped(body: str) -> str:
    """Return the inner part of a PEM text with its line breaks, which may have become spaces."""
    headers = _PEM_HEADERS.match(body)
    before = "" if headers is None else f"{headers[1]}\n{headers[2]}\n\n"
    rest = textwrap.dedent(body[0 if headers is None else headers.end() :])
    if "\n" not in rest:
        letters = re.sub(r"\s", "", rest)
    else:
        *lines, last = [line for line in rest.split("\n") if line.strip()] or [""]
        if len(set(map(len, lines))) > 1:
            lines = [line.strip() for line in lines]
        # In a URI that was not encoded, a plus becomes a space.
        letters = "".join([*lines, last.strip()]).replace(" ", "+")
    return before + "\n".join(letters[at : at + 64] for at in range(0, len(letters), 64))


def _without_frame(text: str, passphrase: str | None) -> paramiko.PKey:
    """Read the key from a text that has no complete pair of BEGIN and END lines, or say what it is instead."""
    if not text:
        raise UnusableKey("is empty")
    if text.startswith("PuTTY-User-Key-File"):
        raise UnusableKey(
            "is in PuTTY's own format; convert it with `puttygen KEY.ppk -O private-openssh -o KEY` and use KEY"
        )
    if _PUBLIC.match(text):
        raise UnusableKey(f"is a public key or a certificate; what is needed is {_KINDS}, the file without .pub")
    if "PRIVATE KEY-----" in text:
        raise UnusableKey("is cut off: its BEGIN and END lines must both be there, and be a pair")
    if text.startswith(("/", "~", "./", "file:")) and "\n" not in text and " " not in text:
        raise UnusableKey("is a path, not a key; put the path of a key into the field key_file")
    try:
        data = base64.b64decode(re.sub(r"\s", "", text), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if data.startswith(b"-----BEGIN"):
        return parse_key(data.decode(errors="replace"), passphrase)
    if data.startswith(_OPENSSH_MAGIC):
        return parse_key(f"-----BEGIN {_OPENSSH}-----\n{text}\n-----END {_OPENSSH}-----", passphrase)
    if data.startswith(b"0"):
        return _loaded(serialization.load_der_private_key, data, passphrase)
    raise UnusableKey(f"cannot be read: it must be the whole text of {_KINDS}, with its BEGIN and END lines")


def _loaded(load: Callable[[bytes, bytes | None], object], data: bytes, passphrase: str | None) -> paramiko.PKey:
    try:
        try:
            key = load(data, None)
        except (TypeError, ValueError) as error:
            # Older versions of cryptography raise the other one when a key is encrypted.
            if isinstance(error, ValueError) and "password-protected" not in str(error):
                raise
            if not passphrase:
                raise UnusableKey("is encrypted; put its passphrase into the field private_key_passphrase") from None
            try:
                key = load(data, passphrase.encode())
            except (ValueError, InvalidTag):
                raise UnusableKey(
                    "is encrypted, and what is in the field private_key_passphrase does not open it"
                ) from None
    except UnsupportedAlgorithm as error:
        raise UnusableKey(f"is of a kind that is not supported here ({error}); use {_KINDS}") from None
    except ValueError as error:
        why = f" ({str(error).partition('. ')[0]})" if str(error) else ""
        raise UnusableKey(
            f"cannot be read: a part of it is missing or was changed{why}; copy it again, whole, and in a URI encode "
            "every character, also plus signs (%2B) and line breaks (%0A)"
        ) from None
    return _for_paramiko(key)


def _for_paramiko(key: object) -> paramiko.PKey:
    key_class: type[paramiko.PKey]
    if isinstance(key, rsa.RSAPrivateKey):
        key_class = paramiko.RSAKey
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        key_class = paramiko.Ed25519Key
    elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        key_class = paramiko.ECDSAKey
    else:
        kind = type(key).__name__.removesuffix("PrivateKey")
        curve = f" on the curve {key.curve.name}" if isinstance(key, ec.EllipticCurvePrivateKey) else ""
        raise UnusableKey(f"is of type {kind}{curve}, which SSH servers do not accept; use {_KINDS}")
    form = serialization.PrivateFormat.OpenSSH
    text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    return key_class.from_private_key(StringIO(text))
