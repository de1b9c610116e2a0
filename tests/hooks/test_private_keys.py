"""Private keys in the forms in which people have and paste them."""

from __future__ import annotations

import base64
import itertools
import re
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from airflow_provider_gpu_cluster.hooks.private_keys import UnusableKey, parse_key, read_key_file

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PEM, OPENSSH = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
PKCS8, TRADITIONAL = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
RSA = rsa.generate_private_key(65537, 1024)
ECDSA = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, tuple[Key, serialization.PrivateFormat]] = {
    "OpenSSH RSA": (RSA, OPENSSH),
    "OpenSSH ECDSA": (ECDSA, OPENSSH),
    "OpenSSH Ed25519": (ED25519, OPENSSH),
    "PKCS#1 RSA": (RSA, TRADITIONAL),
    "SEC1 ECDSA": (ECDSA, TRADITIONAL),
    "PKCS#8 RSA": (RSA, PKCS8),
    "PKCS#8 ECDSA": (ECDSA, PKCS8),
    "PKCS#8 Ed25519": (ED25519, PKCS8),
}


def text_of(key: Key | ed448.Ed448PrivateKey | dsa.DSAPrivateKey, form: serialization.PrivateFormat) -> str:
    return key.private_bytes(PEM, form, serialization.NoEncryption()).decode()


def encrypted(key: Key, form: serialization.PrivateFormat) -> str:
    return key.private_bytes(PEM, form, serialization.BestAvailableEncryption(b"open sesame")).decode()


def public_half(key: Key) -> str:
    form = serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode()


def is_of(found: paramiko.PKey, key: Key) -> bool:
    return found.can_sign() and f"{found.get_name()} {found.get_base64()}" == public_half(key)


@pytest.mark.parametrize(("key", "form"), KEYS.values(), ids=KEYS)
def test_every_form_of_a_key_is_read_however_it_was_pasted(key: Key, form: serialization.PrivateFormat) -> None:
    text = text_of(key, form)
    lines = text.splitlines()
    pasted = [
        text,
        text.rstrip("\n"),
        f"\n  {text}  ",
        f'"{text}"',
        "\ufeff" + text,
        text.replace("\n", "\r\n"),
        text.replace("\n", " "),
        text.replace("\n", "\\n"),
        text.replace("\n", "\\r\\n"),
        text.replace("\n", "\n    "),
        # At the edge of a line, a space is lost to whatever trims it.
        re.sub(r"(?<!\n)\+(?!\n)", " ", text),
        "\n".join([lines[0], "".join(lines[1:-1]), lines[-1]]),
        "".join(lines[1:-1]) if form != TRADITIONAL else text,
        base64.b64encode(text.encode()).decode(),
        f"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{text}",
    ]
    # To check an RSA key takes long.
    for form_of_it in pasted[6:8] if key is RSA else pasted:
        assert is_of(parse_key(form_of_it, None), key), form_of_it
    assert is_of(parse_key(text, "of no use"), key)


@pytest.mark.parametrize("name", ["OpenSSH Ed25519", "SEC1 ECDSA", "PKCS#8 Ed25519"])
def test_encrypted_keys(name: str) -> None:
    key, form = KEYS[name]
    text = encrypted(key, form)
    assert is_of(parse_key(text, "open sesame"), key)
    assert is_of(parse_key(text.replace("\n", " "), "open sesame"), key)
    with pytest.raises(UnusableKey, match="is encrypted; put its passphrase into the field private_key_passphrase"):
        parse_key(text, None)
    with pytest.raises(UnusableKey, match="in the field private_key_passphrase does not open it"):
        parse_key(text, "wrong")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("hunter2", "must be the whole text of an RSA, ECDSA or Ed25519 private key"),
        ("/home/ml/.ssh/id_rsa", "is a path, not a key; put the path of a key into the field key_file"),
        (public_half(ED25519), "is a public key or a certificate"),
        ("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", "is a public key or a certificate"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none", "puttygen KEY.ppk -O private-openssh"),
        (text_of(ED25519, OPENSSH).rsplit("-----END", 1)[0], "is cut off"),
        (text_of(ED25519, OPENSSH).split("\n", 1)[1], "is cut off"),
        (text_of(RSA, PKCS8)[:300] + "\n-----END PRIVATE KEY-----", "a part of it is missing or was changed"),
        (text_of(ed448.Ed448PrivateKey.generate(), PKCS8), "is of type Ed448, which SSH servers do not accept"),
        (text_of(ec.generate_private_key(ec.SECP256K1()), PKCS8), "is of type EC on the curve secp256k1"),
        (text_of(dsa.generate_private_key(1024), TRADITIONAL), "is of type DSA"),
    ],
    ids=itertools.count(1),  # keys are new each time
)
def test_what_is_no_key_is_told_exactly(text: str, told: str) -> None:
    with pytest.raises(UnusableKey) as raised:
        parse_key(text, None)
    assert told in str(raised.value)


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(text_of(ED25519, PKCS8))
    (tmp_path / "key").chmod(0o644)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    assert is_of(read_key_file(str(tmp_path / "key"), None), ED25519)
    for name, told in (("", "Is a directory"), ("missing", "No such file"), ("binary", "must be the whole text")):
        with pytest.raises(UnusableKey, match=told):
            read_key_file(str(tmp_path / name), None)
