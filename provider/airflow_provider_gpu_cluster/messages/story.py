"""What a message says, before it is plain text or HTML."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Story:
    """
    What a message says; every text is on one line, without secrets, and cut to a sane length.

    :param tone: ``good``, ``bad``, ``warning`` or ``neutral``.
    :param title: what has happened, in a few words.
    :param name: what it has happened to.
    :param headline: the same as a sentence.
    :param cause: why, as a sentence; empty if nobody knows.
    :param remedy: what to do about it, as a sentence; empty if nobody knows.
    :param facts: label and text of what is known.
    :param metrics: name and value of each.
    :param attempts: of each earlier attempt its number, how it ended, for how long it ran, and where.
    :param earlier: how many attempts before those are left out.
    :param last_lines: what the job printed last.
    :param links: text and address.
    """

    tone: str
    title: str
    name: str
    subject: str
    headline: str
    cause: str = ""
    remedy: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    metrics: tuple[tuple[str, str], ...] = ()
    attempts: tuple[tuple[str, str, str, str], ...] = ()
    earlier: int = 0
    last_lines: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 GPU``, ``2 GPUs``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def sentence(text: str) -> str:
    """Return a text as a sentence: with a capital letter, and a full stop."""
    text = text.strip()
    ended = text if not text or text[-1] in ".!?…" else f"{text}."
    # A name, such as that of a host, stays as it is written.
    return ended[:1].upper() + ended[1:] if ended.partition(" ")[0].rstrip(",:.").isalpha() else ended
