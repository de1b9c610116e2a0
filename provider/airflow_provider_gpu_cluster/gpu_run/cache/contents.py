"""
Contents that jobs are given, kept once for all jobs under ``<root_dir>/.cache``.

``contents/ab/cdef...``   the content of a large file, by its SHA-256; read-only
``tags/<key>``            a link to one: another key it is known by, such as the version of an object in a store
``packs/``                the contents of small files, see :mod:`.cache.packs`
``manifests/<digest>``    the rows of an input, by its digest
``incoming/``             contents that are still arriving, see :mod:`.cache.incoming`

A content appears only after its SHA-256 was computed here. Its time of modification says when a job last used it. A
key is either the SHA-256 or a tag.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from typing import TYPE_CHECKING

from .. import protocol
from ..errors import Refused
from ..linux import regular_files
from ..store import records
from ..store.directories import Root
from .packs import Packs

if TYPE_CHECKING:
    from ..protocol.inputs import Row

# The use of a content is noted no more often than this.
_USED_S = 3600.0
# An input may have a million files.
_MOST_MANIFEST_BYTES = 1 << 30
_KEY = re.compile(r"(tag-)?[0-9a-f]{64}\Z")


class Contents:
    """All contents under one root."""

    def __init__(self, root: Root) -> None:
        self.folder = root.cache
        self.incoming = self.at("incoming")
        self.packs = Packs(self.at("packs"))
        self._now = time.time()

    def at(self, *parts: str) -> str:
        """Return the path of a file or folder in here."""
        return os.path.join(self.folder, *parts)

    def create(self) -> None:
        """Make the folders that are missing."""
        for name in ("contents", "tags", "packs", "manifests", "incoming"):
            os.makedirs(self.at(name), mode=0o700, exist_ok=True)

    def path_of(self, sha256: str) -> str:
        """Return the path of a content, whether it is here or not."""
        return self.at("contents", sha256[:2], sha256[2:])

    def has(self, key: str, size: int) -> bool:
        """Return whether a content is here, judged by its size only, and note nothing."""
        if size <= protocol.WHOLE_BYTES:
            return not size or self.packs.has(key, size)
        # A tag is a link.
        path = self.at("tags", key) if key.startswith("tag-") else self.path_of(key)
        try:
            return os.stat(path).st_size == size
        except OSError:
            return False

    def find(self, key: str, size: int) -> str | None:
        """
        Return the SHA-256 of a content that is here, judged by its size only; note its use.

        :param key: its SHA-256, or a tag of it.
        """
        if size <= protocol.WHOLE_BYTES:
            return self.packs.find(key, size)
        sha256 = self._sha256_of(key)
        if sha256 is None:
            return None
        path = self.path_of(sha256)
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        if found.st_size != size:
            self.remove(sha256)
            return None
        self._note_use(path, found)
        return sha256

    def open(self, key: str, size: int) -> tuple[int, str] | None:
        """Open a large content for reading, and return its descriptor and SHA-256; None when it is not here."""
        sha256 = self._sha256_of(key)
        if sha256 is None:
            return None
        path = self.path_of(sha256)
        try:
            fd = regular_files.open_to_read(path)
        except (FileNotFoundError, regular_files.NotRegular):
            return None
        found = os.fstat(fd)
        if found.st_size != size:
            os.close(fd)
            self.remove(sha256)
            return None
        self._note_use(path, found)
        return fd, sha256

    def _sha256_of(self, key: str) -> str | None:
        if not key.startswith("tag-"):
            return key
        try:
            link = os.readlink(self.at("tags", key))
            self._note_use(self.at("tags", key), os.lstat(self.at("tags", key)))
        except FileNotFoundError:
            return None
        return os.path.basename(os.path.dirname(link)) + os.path.basename(link)

    def _note_use(self, path: str, found: os.stat_result) -> None:
        if found.st_mtime < self._now - _USED_S:
            with contextlib.suppress(OSError):
                os.utime(path, follow_symlinks=False)

    def adopt(self, sha256: str, path: str) -> None:
        """Give a file its final name; its SHA-256 was checked before."""
        final = self.path_of(sha256)
        try:
            os.rename(path, final)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
            os.rename(path, final)

    def tag(self, key: str, sha256: str) -> None:
        """Note another key by which a content is known."""
        if key == sha256:
            return
        draft = self._draft()
        os.symlink(os.path.relpath(self.path_of(sha256), self.at("tags")), draft)
        os.rename(draft, self.at("tags", key))

    def remove(self, sha256: str) -> None:
        """Remove a content that does not match its name."""
        self.packs.remove(sha256)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path_of(sha256))

    # -- manifests

    def has_manifest(self, digest: str) -> bool:
        """Return whether the rows of an input are known."""
        return os.path.exists(self._manifest_path(digest))

    def manifest(
        self, digest: str, *, is_used: bool = True, most_bytes: int = _MOST_MANIFEST_BYTES
    ) -> list[Row] | None:
        """
        Return the rows of an input, if they are known and undamaged.

        :param is_used: whether to note their use.
        :param most_bytes: how long their text may be.
        """
        path = self._manifest_path(digest)
        try:
            found = json.loads(regular_files.read(path, most_bytes))
            if is_used:
                self._note_use(path, os.stat(path))
            rows: list[Row] = found["rows"]
            return rows if digest_of(rows) == found["check"] else None
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def keep_manifest(self, digest: str, rows: list[Row]) -> None:
        """Keep the rows of an input, so that the worker need not send them for the next job that uses it."""
        draft = self._draft()
        with open(draft, "x", encoding="ascii") as file:
            file.write(json.dumps({"check": digest_of(rows), "rows": rows}))
        os.rename(draft, self._manifest_path(digest))

    def _manifest_path(self, digest: str) -> str:
        return self.at("manifests", hashlib.sha256(digest.encode()).hexdigest() + ".json")

    def _draft(self) -> str:
        return os.path.join(self.incoming, records.new_name() + ".tmp")


def digest_of(rows: list[Row]) -> str:
    """Return the SHA-256 of rows, in whatever order they come; the worker computes the same."""
    return hashlib.sha256(json.dumps(sorted(rows), separators=(",", ":")).encode("ascii")).hexdigest()


def checked_key(key: object) -> str:
    """
    Return a key if it is valid, as it becomes the name of a file.

    :raises Refused: it is not a key.
    """
    if not isinstance(key, str) or not _KEY.match(key):
        raise Refused(protocol.BAD_REQUEST, f"{key!r} is no SHA-256 and no tag")
    return key
