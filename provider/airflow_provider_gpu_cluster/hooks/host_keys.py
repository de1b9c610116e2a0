"""The keys by which a host is known: from the field host_key, or else from known_hosts."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import paramiko

from airflow_provider_gpu_cluster.exceptions import GpuClusterHostKeyError
from airflow_provider_gpu_cluster.hooks.certificates import host_certificate, objections_to_host, signer_of

KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2", "/etc/ssh/ssh_known_hosts")
_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"
_CERTIFIED = "-cert-v01@openssh.com"
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
_FINGERPRINT = re.compile(r"SHA256:([A-Za-z0-9+/]{43})=?")


@dataclass(frozen=True)
class KnownKey:
    """
    A key, and where it is written.

    :param kind: its type; empty if only its fingerprint is known.
    """

    place: str
    fingerprint: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.fingerprint} ({self.place})".lstrip()


@dataclass
class KnownHost:
    """What is known of one host, and what could not be read."""

    names: Sequence[str]
    keys: list[KnownKey] = field(default_factory=list)
    revoked: list[KnownKey] = field(default_factory=list)
    authorities: list[KnownKey] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def preferred(self, types: Sequence[str]) -> list[str]:
        """Return the types of host keys that paramiko knows, those first with which this host can be recognized."""
        known = {name for known in self.keys for name in _signatures(known.kind)}
        certified = [f"{name}{_CERTIFIED}" for name in types] if self.authorities else []
        return certified + sorted(types, key=lambda name: name not in known)


def names_of(host: str, port: int) -> str:
    """Return how known_hosts names a host."""
    return host if port == paramiko.config.SSH_PORT else f"[{host}]:{port}"


def keys_in_field(text: str, names: Sequence[str]) -> KnownHost:
    """
    Read the field host_key: keys with or without type, host and comment, or fingerprints.

    :raises ValueError: what is wrong with it.
    """
    known = KnownHost(names)
    lines = text.replace("\\n", "\n").splitlines()
    for word in (word for line in lines if not line.strip().startswith("#") for word in line.split()):
        if word in (_AUTHORITY, _REVOKED):
            raise ValueError(f"{word} is possible only in known_hosts")
        if fingerprint := _FINGERPRINT.fullmatch(word):
            known.keys.append(KnownKey("field host_key", f"SHA256:{fingerprint[1]}"))
        elif word.startswith("AAAA"):
            key = _key(word)
            known.keys.append(KnownKey("field host_key", key.fingerprint, key.get_name()))
    if not known.keys:
        raise ValueError("there is no key in it")
    return known


def keys_in_files(paths: Iterable[str], names: Sequence[str]) -> KnownHost:
    """
    Read what known_hosts files say of a host. What cannot be read is skipped, and named in the result.

    :param names: how the host may be named there.
    """
    known = KnownHost([name.lower() for name in names])
    for path in map(os.path.expanduser, paths):
        try:
            with open(path, "rb") as file:
                lines = file.read().decode(errors="replace").split("\n")
        except FileNotFoundError:
            continue
        except OSError as error:
            known.skipped.append(f"{path} cannot be read: {error.strerror}")
            continue
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.strip().startswith("#"):
                try:
                    _take_line(known, line.split(), f"{path}:{number}")
                except ValueError as error:
                    known.skipped.append(f"{path}:{number} is skipped: {error}")
    return known


def _take_line(known: KnownHost, words: list[str], place: str) -> None:
    marker = words.pop(0) if words[0].startswith("@") else ""
    if marker not in ("", _REVOKED, _AUTHORITY):
        raise ValueError(f"{marker[:40]!r} is no marker of known_hosts")
    if len(words) < 3:
        raise ValueError("it is cut off; a line has host, key type and key")
    patterns, kind, encoded = words[:3]
    if _kind_in(encoded) != kind:
        raise ValueError("its key is damaged")
    if not _applies(patterns, known.names):
        return
    key = _key(encoded)
    entry = KnownKey(place, key.fingerprint, key.get_name())
    {"": known.keys, _REVOKED: known.revoked, _AUTHORITY: known.authorities}[marker].append(entry)


def _applies(patterns: str, names: Sequence[str]) -> bool:
    if patterns.startswith("|"):
        try:
            return any(paramiko.HostKeys.hash_host(name, patterns) == patterns for name in names)
        except (AssertionError, IndexError, ValueError):
            raise ValueError("its hashed host name is damaged") from None
    listed = patterns.lower().split(",")
    if any(matches(pattern[1:], name) for pattern in listed if pattern.startswith("!") for name in names):
        return False
    return any(matches(pattern, name) for pattern in listed for name in names)


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern, with ``*`` and ``?``, matches a name."""
    letters = {"*": ".*", "?": "."}
    return re.fullmatch("".join(letters.get(letter) or re.escape(letter) for letter in pattern), name) is not None


def _kind_in(encoded: str) -> str:
    try:
        kind = paramiko.Message(base64.b64decode(encoded, validate=True)).get_text()
    except (binascii.Error, ValueError):
        kind = ""
    if not kind:
        raise ValueError("its key is damaged")
    return kind


def _key(encoded: str) -> paramiko.PKey:
    kind = _kind_in(encoded)
    blob = base64.b64decode(encoded)
    try:
        key = paramiko.PKey.from_type_string(kind, blob)
    except paramiko.pkey.UnknownKeyType:
        raise ValueError(f"keys of type {kind[:60]!r} are not supported here; use a key of another type") from None
    except Exception:  # each class of paramiko has its own ways to fail
        raise ValueError("its key is cut off or damaged") from None
    if key.asbytes() != blob:
        raise ValueError("its key is cut off or damaged")
    return key


def _signatures(kind: str) -> Sequence[str]:
    return _RSA_SIGNATURES if kind == "ssh-rsa" else (kind,)


class HostKeyCheck(paramiko.MissingHostKeyPolicy):
    """
    Decides whether a host is the one that it should be.

    :param known: what is known of it.
    :param where: the host and its connection, for the beginning of messages.
    :param address: host and port, for the advice in messages.
    """

    def __init__(self, known: KnownHost, where: str, address: tuple[str, int]) -> None:
        self._known = known
        self._where = where
        self._host, self._port = address

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """
        Return if the host has shown a key that is good.

        :raises GpuClusterHostKeyError: it has not.
        """
        certificate = host_certificate(key)
        signer = None if certificate is None else signer_of(certificate)
        for revoked in self._known.revoked:
            if revoked.fingerprint in (key.fingerprint, signer):
                raise GpuClusterHostKeyError(
                    f"{self._where}: its host key {_shown(key)}, or the authority that certified it, is revoked in "
                    f"{revoked.place}. Do not connect; ask its administrator"
                )
        if any(known.fingerprint == key.fingerprint for known in self._known.keys):
            return
        objections: list[str] = []
        trusted = [authority.fingerprint for authority in self._known.authorities]
        if certificate is not None:
            objections = list(objections_to_host(certificate, self._is_name, trusted))
            if not objections:
                return
        raise GpuClusterHostKeyError(f"{self._where}: {self._refusal(key, objections)}")

    def _is_name(self, pattern: str) -> bool:
        return any(matches(pattern.lower(), name) for name in (self._host.lower(), *self._known.names))

    def _refusal(self, key: paramiko.PKey, objections: Sequence[str]) -> str:
        advice = (
            f"Run `ssh-keyscan -p {self._port} {self._host}` on a machine that reaches it, compare what it prints with "
            "what the administrator says, and put the last two words of a line (such as 'ssh-ed25519 AAAA...') into "
            "the field host_key of the connection"
        )
        also = f" ({'; '.join(self._known.skipped)})" if self._known.skipped else ""
        if objections:
            return f"its host certificate is not good: {' and '.join(objections)}{also}. {advice}"
        expected = ", or ".join(map(str, self._known.keys))
        if not self._known.keys:
            trusted = ", ".join(authority.place for authority in self._known.authorities)
            why = f"; {trusted} trusts an authority for it, and it shows no certificate" if trusted else ""
            return f"its host key is not known: it shows {_shown(key)}{why}{also}. {advice}"
        kinds = {known.kind for known in self._known.keys}
        if "" in kinds or key.get_name() in kinds:
            happened = "its host key has changed"
        else:
            happened = "it shows a host key of another type than those that are known"
        return (
            f"{happened}: expected {expected}, got {_shown(key)}{also}. Either the machine was set up anew, or has "
            "several keys of which only some are known, or somebody sits in between: ask its administrator before you "
            "put the new key into the field host_key (or the workers' known_hosts)"
        )


def _shown(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"
