"""The key with which a connection logs in: from its fields, or from ~/.ssh/config."""

from __future__ import annotations

import copy
import logging
import os
from dataclasses import dataclass, replace

import paramiko
from cryptography.hazmat.primitives.serialization import SSHCertificate

from airflow_provider_gpu_cluster.exceptions import GpuClusterAuthenticationError, GpuClusterSetupError
from airflow_provider_gpu_cluster.hooks.certificates import CERTIFICATE_SUFFIX, add_certificate
from airflow_provider_gpu_cluster.hooks.fields import Fields
from airflow_provider_gpu_cluster.hooks.private_keys import UnusableKey, parse_key, read_key_file
from airflow_provider_gpu_cluster.hooks.ssh_config import CONFIG, HostConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoginKey:
    """
    A key with which to log in.

    :param key: the key, with its certificate if it has one.
    :param name: where it comes from, for messages.
    :param plain_key: the same key without certificate.
    :param certificate: its certificate.
    :param certificate_file: where that comes from.
    """

    key: paramiko.PKey
    name: str
    plain_key: paramiko.PKey
    certificate: SSHCertificate | None = None
    certificate_file: str = ""


def passphrase_in(fields: Fields) -> str | None:
    """Return the passphrase of the connection's key."""
    return fields.secret_text("private_key_passphrase") or fields.secret_text("passphrase")


def login_key(fields: Fields, config: HostConfig, *, has_password: bool) -> LoginKey | None:
    """
    Return the key of a connection.

    :param config: what ~/.ssh/config says of the host; its keys count if the connection has no way to log in.
    :raises GpuClusterAuthenticationError: there is one, and it cannot be used. The server would only refuse it.
    """
    text, path = fields.secret_text("private_key"), fields.text("key_file")
    certificate_file = fields.text("certificate_file")
    if text and path:
        raise GpuClusterSetupError(f"connection {fields.conn_id} has both private_key and key_file; keep one of them")
    if path and path.endswith(CERTIFICATE_SUFFIX):
        path, certificate_file = path.removesuffix(CERTIFICATE_SUFFIX), certificate_file or path
    where = f"connection {fields.conn_id}"
    if not text and not path:
        if certificate_file:
            raise GpuClusterSetupError(f"{where} has a certificate_file without private_key or key_file; add its key")
        return None if has_password else _of_config(config, passphrase_in(fields))
    name = f"field key_file: the private key {path}" if path else "the private key in field private_key"
    try:
        key = read_key_file(path, passphrase_in(fields)) if path else parse_key(text or "", passphrase_in(fields))
    except UnusableKey as error:
        raise GpuClusterAuthenticationError(f"{where}: {name} {error}") from None
    found = LoginKey(key, f"key_file {path}" if path else "private_key", copy.copy(key))
    if certificate_file:
        try:
            return _certified(found, certificate_file)
        except UnusableKey as error:
            raise GpuClusterAuthenticationError(
                f"{where}: field certificate_file: the certificate {certificate_file} {error}"
            ) from None
    return _certified_beside(found, path) if path else found


def _of_config(config: HostConfig, passphrase: str | None) -> LoginKey | None:
    """Return the first key of ~/.ssh/config that can be used; ssh as well passes over the others."""
    for path in config.identity_files:
        try:
            key = read_key_file(path, passphrase)
        except UnusableKey as error:
            log.warning("%s: the private key %s %s", CONFIG, path, error)
            continue
        found = LoginKey(key, f"IdentityFile {path} of {CONFIG}", copy.copy(key))
        for certificate_file in config.certificate_files:
            try:
                return _certified(found, certificate_file)
            except UnusableKey as error:
                log.warning("%s: the certificate %s %s", CONFIG, certificate_file, error)
        return _certified_beside(found, path)
    return None


def _certified_beside(found: LoginKey, path: str) -> LoginKey:
    certificate_file = path + CERTIFICATE_SUFFIX
    if not os.path.exists(os.path.expanduser(certificate_file)):
        return found
    try:
        return _certified(found, certificate_file)
    except UnusableKey as error:
        log.warning("the certificate %s beside the private key is not used: it %s", certificate_file, error)
        return found


def _certified(found: LoginKey, path: str) -> LoginKey:
    return replace(found, certificate=add_certificate(found.key, path), certificate_file=path)
