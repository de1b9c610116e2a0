"""Words for people: of exceptions that may have none, and of a cluster that may send anything as text."""

from __future__ import annotations

import re
import socket

MOST_CHARACTERS = 4000
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# What some exceptions have instead of words that say something.
_UNTOLD = ("No existing session", "EOF during negotiation", "Channel closed.", "Socket is closed")


def words_of(error: BaseException) -> str:
    """Return what an exception says, or, when it says nothing, what its type means; never an empty text."""
    # Late, since Airflow loads plugins, which use this, in all of its processes.
    import paramiko

    said = cleaned(str(getattr(error, "strerror", None) or error)).strip().rstrip(":").rstrip()
    if isinstance(error, paramiko.ssh_exception.ChannelException):
        return f"the SSH server opens no session: {said or 'it gives no reason'}"
    if said and said not in _UNTOLD:
        return said
    if isinstance(error, (TimeoutError, socket.timeout)):
        return "no answer in time"
    if isinstance(error, (EOFError, ConnectionError, paramiko.SSHException)) or said:
        return "the other side closed the connection without a word"
    # FileNotFoundError: file not found error
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()


def cleaned(text: str, most: int = MOST_CHARACTERS) -> str:
    """
    Return text from a cluster without what controls a terminal or turns lines around, cut to a sane length.

    :param most: how many characters to keep; lines and tabs stay.
    """
    cut = text[:most].replace("\r\n", "\n")
    clean = "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in cut)
    return clean if len(text) <= most else f"{clean}… ({len(text) - most} more characters)"


def readable(text: str) -> str:
    """Make a log readable for a person: no terminal codes, and only the last state of a redrawn line."""
    text = ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n")
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    cleaned = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", "\n".join(lines))
    return cleaned.encode("utf-8", "replace").decode("utf-8")
