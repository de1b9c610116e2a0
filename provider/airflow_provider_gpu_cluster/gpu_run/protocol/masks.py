"""
Hiding a job's secrets in what is shown of it.

Who shows a job's output long after its launch, on another machine, does not have the secrets that the job was given.
So the record of an attempt holds a mask of each secret, by which the secret can be recognized but not read: its
length, and salted hashes of it and of its first character, which makes the search fast. That of which characters it is
made makes it faster: few words of a log are as long as a key.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from typing import Any, Iterable, Iterator, TypedDict

HIDDEN = "***"

_DIGEST_BYTES = 16
# Characters; Linux takes no longer environment variable.
_LONGEST = 1 << 18
# Characters; of longer secrets, not all candidates are kept in memory.
_LONG = 128
# What secrets are made of, the narrowest first.
_MADE_OF = {"word": "[A-Za-z0-9_-]", "visible": "[!-~]"}


class _Masks(TypedDict):
    salt: str
    secrets: list[Any]


class Masks(_Masks, total=False):
    """
    The masks of a job's secrets.

    :param salt: random, in hex.
    :param secrets: of each secret its length in characters, and the hashes of its first character and of all of it.
    :param made_of: by the hash of a secret, of which characters it is made: a name of :data:`_MADE_OF`. Missing for
        others, and in records of earlier programs.
    :param others: further masks, with salts of their own. No record has any.
    """

    made_of: dict[str, str]
    others: list[Any]


def masks_of(secrets: Iterable[str]) -> Masks | None:
    """Return the masks of secrets; None if there are none."""
    return with_more({"salt": os.urandom(16).hex(), "secrets": []}, secrets)


def with_more(masks: Masks | None, secrets: Iterable[str]) -> Masks | None:
    """Return masks that also have those of further secrets; None if there are none at all."""
    if masks is None or not are_masks(masks):
        return masks_of(secrets)
    salt = bytes.fromhex(masks["salt"])
    known, made_of = list(masks["secrets"]), dict(masks.get("made_of", {}))
    for text in sorted({secret for secret in secrets if secret}):
        mask = _mask(salt, text)
        if mask not in known:
            known.append(mask)
        kind = next((kind for kind, one in _MADE_OF.items() if re.fullmatch(f"{one}+", text)), None)
        if kind is not None:
            made_of[mask[2]] = kind
    return {"salt": masks["salt"], "secrets": known, "made_of": made_of} if known else None


def joined(several: Iterable[Masks]) -> Masks | None:
    """Return masks by which the secrets of all of these are recognized; None if there are none."""
    found = list(several)
    if len(found) < 2:
        return found[0] if found else None
    return {**found[0], "others": found[1:]}


def are_masks(value: object) -> bool:
    """Return whether a value is of the form of masks; jobs can write to the records that hold them."""
    if not isinstance(value, dict) or not isinstance(value.get("secrets"), list):
        return False
    salt = value.get("salt")
    return (
        isinstance(salt, str)
        and re.fullmatch("([0-9a-f]{2}){1,64}", salt) is not None
        and all(_is_mask(mask) for mask in value["secrets"])
        and isinstance(value.get("made_of", {}), dict)
        and all(isinstance(kind, str) for kind in value.get("made_of", {}).values())
        and "others" not in value
    )


def _mask(salt: bytes, text: str) -> list[Any]:
    return [len(text), _digest(salt, text[0]), _digest(salt, text)]


def _is_mask(mask: object) -> bool:
    if not isinstance(mask, list) or len(mask) != 3:
        return False
    length, first, whole = mask
    return isinstance(length, int) and 0 < length < _LONGEST and isinstance(first, str) and isinstance(whole, str)


def hidden(text: str, masks: Masks | None, start: int = 0) -> str:
    """
    Return a text with each secret replaced.

    :param start: leave out the text before this index, of a secret that begins there as well.
    """
    shown: list[str] = []
    at = start
    for begin, end in places(text, masks) if masks else ():
        if end > at:
            shown += (text[at:begin], HIDDEN)
            at = end
    return "".join(shown) + text[at:]


def hidden_in(value: Any, masks: Masks | None) -> Any:
    """Return a JSON value with each secret replaced, in names as well."""
    # Most values hold none, and one look at all texts together takes far less time than one at each.
    if masks is None or not places("\0".join(_texts(value)), masks):
        return value
    return _hidden_in(value, masks)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _hidden_in(value: Any, masks: Masks) -> Any:
    if isinstance(value, str):
        return hidden(value, masks)
    if isinstance(value, dict):
        return {hidden(str(name), masks): _hidden_in(item, masks) for name, item in value.items()}
    if isinstance(value, list):
        return [_hidden_in(item, masks) for item in value]
    return value


def longest(masks: Masks | None) -> int:
    """Return the length of the longest secret, in characters."""
    every = [masks, *masks.get("others", ())] if masks else []
    return max((length for one in every for length, _, _ in one["secrets"]), default=0)


def places(text: str, masks: Masks) -> list[tuple[int, int]]:
    """Return where secrets are in a text, in order; those that touch are one."""
    found = [place for one in (masks, *masks.get("others", ())) for place in _found(text, one)]
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(found):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _found(text: str, masks: Masks) -> Iterator[tuple[int, int]]:
    salt = bytes.fromhex(masks["salt"])
    made_of = masks.get("made_of", {})
    # By characters and length: the hashes of first characters, and those of whole secrets.
    searches: dict[tuple[str, int], tuple[set[str], set[str]]] = {}
    for length, first, whole in masks["secrets"]:
        firsts, wholes = searches.setdefault((_MADE_OF.get(made_of.get(whole, ""), ""), length), (set(), set()))
        firsts.add(first)
        wholes.add(whole)
    # To look at each character takes longer than the search.
    others = set() if text.isascii() else set(re.findall(r"[^\x00-\x7f]", text))
    digests = {**_ascii_digests(salt), **{letter: _digest(salt, letter) for letter in others}}
    for (characters, length), (firsts, wholes) in searches.items():
        for letter in (letter for letter, digest in digests.items() if digest in firsts):
            for secret in _candidates(text, letter, characters, length):
                if _digest(salt, secret) in wholes:
                    same = re.finditer(re.escape(letter) + f"(?={re.escape(secret[1:])})", text)
                    yield from ((at.start(), at.start() + length) for at in same)


def _candidates(text: str, letter: str, characters: str, length: int) -> Iterable[str]:
    """Return what may be a secret: all parts of that length that begin so, most of them once."""
    if length > _LONG:
        starts = (at.start() for at in re.finditer(re.escape(letter), text[: max(0, len(text) - length + 1)]))
        return (text[at : at + length] for at in starts)
    # Logs repeat themselves, so there are far fewer different ones than places where they are.
    rest = f"(?=({characters or '.'}{{{length - 1}}}))"
    return {letter + found for found in re.findall(re.escape(letter) + rest, text, re.DOTALL)}


@lru_cache(maxsize=64)
def _ascii_digests(salt: bytes) -> dict[str, str]:
    return {letter: _digest(salt, letter) for letter in map(chr, range(128))}


def _digest(salt: bytes, text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES, key=salt).hexdigest()
