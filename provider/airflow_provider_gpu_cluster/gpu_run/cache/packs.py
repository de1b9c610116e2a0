"""
Small contents, many to a file: making a file takes far longer than writing a few kilobytes into one that is open.

``packs/<name>.data``    the contents, one after the other
``packs/<name>.index``   a record for each: its key, its SHA-256, where it begins, and its size

A pack is written once. Its index is written last, so that a visible pack is complete. Its time of modification says
when a job last used a content of it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from typing import NamedTuple

from ..linux import regular_files
from ..store import records

# Whether the key is a tag, the key, the SHA-256, the offset, and the size.
_RECORD = struct.Struct(">?32s32sQQ")
# A killed process loses the pack that it has not closed.
MOST_BYTES = 1 << 25
MOST_OPEN = 64
# A pack of contents of one byte each, by two keys each.
_MOST_INDEX_BYTES = 2 * MOST_BYTES * _RECORD.size
_USED_S = 3600.0


class _Place(NamedTuple):
    pack: str
    sha256: str
    offset: int
    size: int


class Packs:
    """All packs in a folder. Packs that other processes add after the first look are not seen."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._places: dict[str, _Place] | None = None
        self._open: dict[str, int] = {}
        self._used: set[str] = set()

    def has(self, key: str, size: int) -> bool:
        """Return whether a content is here, and note nothing."""
        place = self._index().get(key)
        return place is not None and place.size == size

    def find(self, key: str, size: int) -> str | None:
        """Return the SHA-256 of a content that is here; note its use."""
        place = self._index().get(key)
        if place is None or place.size != size:
            return None
        self._note_use(place.pack)
        return place.sha256

    def read(self, key: str, size: int) -> tuple[bytes, str] | None:
        """Return a content as it is on the disk, and the SHA-256 that it should have; None when it is not here."""
        place = self._index().get(key)
        if place is None or place.size != size:
            return None
        self._note_use(place.pack)
        try:
            return os.pread(self._fd(place.pack), size, place.offset), place.sha256
        except (OSError, OverflowError):
            # The index promises contents that do not exist.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path(place.pack, "index"))
            self.forget()
            return None

    def remove(self, sha256: str) -> None:
        """Remove a content that does not match its record."""
        # Search by SHA-256, not by key: a damaged record may list the content under another key.
        for pack in {place.pack for place in self._index().values() if place.sha256 == sha256}:
            left = {key: other for key, other in self._read(pack).items() if other.sha256 != sha256}
            self.write_index(pack, left)
            self.forget()

    def forget(self) -> None:
        """Look anew at which packs are here."""
        self._places = None

    def _index(self) -> dict[str, _Place]:
        if self._places is None:
            self._places = {}
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(self.folder):
                    if name.endswith(".index"):
                        self._places.update(self._read(name[: -len(".index")]))
        return self._places

    def _read(self, pack: str) -> dict[str, _Place]:
        try:
            data = regular_files.read(self.path(pack, "index"), _MOST_INDEX_BYTES)
        except (FileNotFoundError, regular_files.NotRegular):
            return {}
        whole = len(data) // _RECORD.size * _RECORD.size
        places = {}
        for is_tag, key, sha256, offset, size in _RECORD.iter_unpack(data[:whole]):
            name = "tag-" + key.hex() if is_tag else key.hex()
            # There may be a million: keep equal strings once.
            places[name] = _Place(pack, name if key == sha256 and not is_tag else sha256.hex(), offset, size)
        return places

    def write_index(self, pack: str, places: dict[str, _Place]) -> None:
        """Write the index of a pack, or replace it."""
        draft = os.path.join(self.folder, records.new_name() + ".tmp")
        with open(draft, "xb") as file:
            for key, place in places.items():
                is_tag = key.startswith("tag-")
                name = bytes.fromhex(key[4:] if is_tag else key)
                file.write(_RECORD.pack(is_tag, name, bytes.fromhex(place.sha256), place.offset, place.size))
        os.rename(draft, self.path(pack, "index"))

    def path(self, pack: str, suffix: str) -> str:
        """Return the path of one of a pack's two files."""
        return os.path.join(self.folder, f"{pack}.{suffix}")

    def _fd(self, pack: str) -> int:
        if pack not in self._open:
            while len(self._open) >= MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[pack] = regular_files.open_to_read(self.path(pack, "data"))
        return self._open[pack]

    def _note_use(self, pack: str) -> None:
        if pack not in self._used:
            self._used.add(pack)
            path = self.path(pack, "index")
            with contextlib.suppress(OSError):
                if os.stat(path).st_mtime < time.time() - _USED_S:
                    os.utime(path)


class PackWriter:
    """Write packs of a limited size each."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs
        self._name = ""
        self._file: int | None = None
        self._places: dict[str, _Place] = {}
        self._waiting: list[bytes] = []
        self._size = 0

    def add(self, key: str, sha256: str, data: bytes) -> None:
        """Add a content whose SHA-256 was checked."""
        if self._size and self._size + len(data) > MOST_BYTES:
            self.close()
        self._name = self._name or records.new_name()
        place = _Place(self._name, sha256, self._size, len(data))
        self._places[key] = self._places[sha256] = place
        self._waiting.append(data)
        self._size += len(data)

    def close(self) -> None:
        """Write what was added, so that other processes see it."""
        if not self._places:
            return
        os.makedirs(self._packs.folder, mode=0o700, exist_ok=True)
        path = self._packs.path(self._name, "data")
        try:
            with open(path, "xb") as file:
                file.writelines(self._waiting)
            self._packs.write_index(self._name, self._places)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        finally:
            self._name, self._places, self._waiting, self._size = "", {}, [], 0
            self._packs.forget()
