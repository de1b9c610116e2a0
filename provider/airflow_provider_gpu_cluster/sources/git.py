"""Parses a Git repository given as a source: ``git+https://host/repo.git@ref#subdirectory=x``."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.sources.source import GitSource

SCHEMES = ("https", "http", "ssh", "git", "file")
_FORM = "git+https://host/repo.git@ref#subdirectory=folder"
_BLANK_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")
# What `git check-ref-format` refuses, and what git would interpret as an option.
_NO_REF = re.compile(r"^$|^-|[\x00-\x20\x7f~^:?*\[\\]|\.\.")


def parse_git(kind: str, text: str) -> GitSource:
    """
    Parse ``git+<url>[@ref][#subdirectory=folder]``.

    A user name and password or token are removed from an http URL; the user name of an ssh URL stays.

    :raises InvalidJobError: it has another form. The message holds no credentials.
    """
    shown = _without_credentials(text)

    def invalid(problem: str) -> InvalidJobError:
        return InvalidJobError(f"{kind}: {shown!r} {problem}; write {_FORM} (or {_schemes()})")

    if _BLANK_OR_CONTROL.search(text):
        raise invalid("contains a blank or control character (write a blank as %20)")
    try:
        parts = urlsplit(text.removeprefix("git+"))
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise invalid("has a malformed host or port (in a password, / is written %2F and @ is %40)") from None
    if parts.scheme not in SCHEMES:
        raise invalid("has no URL that git can fetch")
    if parts.query:
        raise invalid("has a query (?...), which is not supported")
    user_info, _, host_port = parts.netloc.rpartition("@")
    if parts.scheme != "file" and (not host or host.startswith("-")):
        raise invalid("names no host")
    credentials: str | None = None
    authority = parts.netloc
    if parts.scheme in ("http", "https"):
        credentials, authority = _credentials(user_info), host_port
    elif ":" in user_info:
        raise invalid("carries a password, which an ssh URL cannot; use a key on the cluster")
    elif user_info.startswith("-"):
        raise invalid("has a user name that starts with -")

    path, ref = _split_ref(parts.path)
    if not path.strip("/"):
        raise invalid("names no repository")
    if ref is not None and _NO_REF.search(ref):
        raise invalid("has a ref after @ that is no branch, tag or commit")
    try:
        subdirectory = _subdirectory(parts.fragment)
    except ValueError:
        raise invalid("ends in something other than #subdirectory=folder inside the repository") from None

    url = f"{parts.scheme}://{authority}{path}"
    name = ""
    if kind != "code":
        repository = posixpath.basename(unquote(path).rstrip("/")).removesuffix(".git")
        name = posixpath.basename(subdirectory or "") or repository
        if name in ("", ".", ".."):
            raise invalid("names no repository")
    written = f"git+{url}"
    if ref:
        written += f"@{ref}"
    if subdirectory:
        written += f"#subdirectory={subdirectory}"
    return GitSource(kind, name, written, url=url, ref=ref, subdirectory=subdirectory, credentials=credentials)


def _credentials(user_info: str) -> str | None:
    """Return ``user:token``. A word alone is a token, which the large hosts take with any name."""
    if not user_info:
        return None
    return unquote(user_info if ":" in user_info else f"x-access-token:{user_info}")


def _split_ref(path: str) -> tuple[str, str | None]:
    """
    Split the path of a URL at the ``@`` before the ref.

    After ``.git`` it is certain; otherwise it is the last one that does not open a part of the path, so that
    ``/@scope/repo`` has no ref and a ref may contain slashes.
    """
    before, mark, ref = path.partition(".git@")
    if mark:
        return f"{before}.git", unquote(ref)
    match = re.fullmatch(r"(.*[^/])@(.*)", path, re.DOTALL)
    return (match[1], unquote(match[2])) if match else (path, None)


def _subdirectory(fragment: str) -> str | None:
    """
    Return the folder a fragment names; None when it names none, or the repository's top.

    :raises ValueError: the fragment has another form, or the folder is outside the repository.
    """
    if not fragment:
        return None
    pairs = parse_qsl(fragment.replace("+", "%2B"), keep_blank_values=True)
    if len(pairs) != 1 or pairs[0][0] != "subdirectory":
        raise ValueError(fragment)
    folder = posixpath.normpath(pairs[0][1])
    if folder.startswith(("/", "-", "../")) or folder == ".." or "\0" in folder:
        raise ValueError(fragment)
    return None if folder == "." else folder


def _schemes() -> str:
    return ", ".join(f"git+{scheme}://" for scheme in SCHEMES[1:])


def _without_credentials(text: str) -> str:
    """Remove everything that might be a credential, even from a URL that is too malformed to be parsed."""
    scheme, mark, rest = text.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not mark:
        return f"git+***@{text.rpartition('@')[2]}" if "@" in text else text
    if scheme not in ("git+http", "git+https") and ":" not in authority.rpartition("@")[0]:
        return text
    if "@" in authority:
        return f"{scheme}{mark}***@{rest[authority.rindex('@') + 1 :]}"
    # An unescaped slash in a password cuts the authority short, so that its port is not a number.
    if ":" in authority and not re.fullmatch(r"[^:]*:\d*|.*\]:?\d*", authority):
        return f"{scheme}{mark}***"
    return text
