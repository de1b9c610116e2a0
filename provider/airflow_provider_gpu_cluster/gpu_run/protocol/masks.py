"""
Hiding a job's secrets in what is shown of it.

Who shows a job's output long after its launch, on another machine, does not have the secrets that the job was given.
So the record of an attempt holds a mask of each secret, by which the secret can be recognized but not read: its
length, and salted hashes of it and of its first character, which makes the search fast.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, Iterable, Iterator, TypedDict

HIDDEN = "***"

_DIGEST_BYTES = 16
# Characters; Linux takes no longer environment variable.
_LONGEST = 1 << 18


class Masks(TypedDict):
    """
    The masks of a job's secrets.

    :param salt: random, in hex.
    :param secrets: of each secret its length in characters, and the hashes of its first character and of all of it.
    """

    salt: str
    secrets: list[Any]


def masks_of(secrets: Iterable[str]) -> Masks | None:
    """Return the masks of secrets; None if there are none."""
    texts = sorted({secret for secret in secrets if secret})
    if not texts:
        return None
    salt = os.urandom(16)
    return {"salt": salt.hex(), "secrets": [_mask(salt, text) for text in texts]}


def with_more(masks: Masks | None, secrets: Iterable[str]) -> Masks | None:
    """Return masks that also have those of further secrets; None if there are none at all."""
    if masks is None or not are_masks(masks):
        return masks_of(secrets)
    salt = bytes.fromhex(masks["salt"])
    found = [_mask(salt, text) for text in sorted({secret for secret in secrets if secret})]
    return {
        "salt": masks["salt"],
        "secrets": [*masks["secrets"], *(mask for mask in found if mask not in masks["secrets"])],
    }


def are_masks(value: object) -> bool:
    """Return whether a value is of the form of masks; jobs can write to the records that hold them."""
    if not isinstance(value, dict) or not isinstance(value.get("secrets"), list):
        return False
    salt = value.get("salt")
    return (
        isinstance(salt, str)
        and re.fullmatch("([0-9a-f]{2}){1,64}", salt) is not None
        and all(_is_mask(mask) for mask in value["secrets"])
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
    for begin, end in _places(text, masks) if masks else ():
        if end > at:
            shown += (text[at:begin], HIDDEN)
            at = end
    return "".join(shown) + text[at:]


def hidden_in(value: Any, masks: Masks | None) -> Any:
    """Return a JSON value with each secret replaced, in names as well."""
    # Most values hold none, and one look at all texts together takes far less time than one at each.
    if masks is None or not _places("\0".join(_texts(value)), masks):
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
    return max((length for length, _, _ in masks["secrets"]), default=0) if masks else 0


def _places(text: str, masks: Masks) -> list[tuple[int, int]]:
    """Return where secrets are, in order; those that touch are one."""
    salt = bytes.fromhex(masks["salt"])
    by_length: dict[int, tuple[set[str], set[str]]] = {}
    for length, first, whole in masks["secrets"]:
        firsts, wholes = by_length.setdefault(length, (set(), set()))
        firsts.add(first)
        wholes.add(whole)
    digests = {letter: _digest(salt, letter) for letter in set(text)}
    found = []
    for length, (firsts, wholes) in by_length.items():
        for letter in (letter for letter, digest in digests.items() if digest in firsts):
            at = text.find(letter)
            while 0 <= at <= len(text) - length:
                if _digest(salt, text[at : at + length]) in wholes:
                    found.append((at, at + length))
                at = text.find(letter, at + 1)
    places: list[tuple[int, int]] = []
    for begin, end in sorted(found):
        if places and begin <= places[-1][1]:
            places[-1] = (places[-1][0], max(end, places[-1][1]))
        else:
            places.append((begin, end))
    return places


def _digest(salt: bytes, text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES, key=salt).hexdigest()
