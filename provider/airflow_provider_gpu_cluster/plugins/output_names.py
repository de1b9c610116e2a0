"""Names of outputs, which a job may have chosen to harm those who look at them. No IO."""

from __future__ import annotations

import base64
import binascii
import os
import unicodedata
from urllib.parse import quote

from airflow_provider_gpu_cluster.gpu_run.protocol.lines import safe_path

MOST_BYTES = 8192
_MOST_NAME = 150
# Characters that a file system or a header gives a meaning, besides those that are not printable.
_MEANINGFUL = frozenset('"\\/:*?<>|%;')


def path_of(path: str | None, path_base64: str | None) -> str:
    """
    Return the path that a request names.

    :param path: as text.
    :param path_base64: its bytes in base64, for a path that is not UTF-8.
    :raises ValueError: it names nothing, or nothing below a folder.
    """
    if path_base64 is not None:
        try:
            path = os.fsdecode(base64.urlsafe_b64decode(path_base64.encode()))
        except (binascii.Error, UnicodeEncodeError) as error:
            raise ValueError(f"path_base64 is not base64: {error}") from error
    if path is None or len(path) > MOST_BYTES:
        raise ValueError(f"path is missing, or has more than {MOST_BYTES} characters")
    return safe_path(path)


def shown_path(path: str) -> tuple[str, str | None]:
    """
    Return a path as text, and its bytes in base64 if the text does not tell them.

    :param path: as the operating system's functions have it.
    """
    data = os.fsencode(path) if _is_of_bytes(path) else path.encode("utf-8", "replace")
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace"), base64.urlsafe_b64encode(data).decode()


def _is_of_bytes(path: str) -> bool:
    return all(not "\ud800" <= letter <= "\udfff" or "\udc80" <= letter <= "\udcff" for letter in path)


def attachment(path: str) -> str:
    """Return the header ``Content-Disposition`` by which a browser saves a file, under a name that harms nobody."""
    name = "".join(map(_harmless, path.rpartition("/")[2])).strip(" .") or "output"
    if len(name) > _MOST_NAME:
        stem, _, suffix = name.rpartition(".")
        suffix = suffix[:20]
        name = f"{(stem or name)[: _MOST_NAME - len(suffix) - 1]}.{suffix}"
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _harmless(letter: str) -> str:
    is_fine = letter.isprintable() and unicodedata.category(letter) not in ("Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return letter if is_fine and letter not in _MEANINGFUL else "_"
