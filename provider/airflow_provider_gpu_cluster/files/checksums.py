"""
Remembers the SHA-256 of files that were read before, as long as the files have not changed.

A small database of this user on this machine holds them. It only saves work: if anything goes wrong with it, files are
read again. A file counts as unchanged while its device, inode, size, time of modification and time of change are the
same; a program cannot set the last of these.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 20
# A file that was written so recently may be written again without a change of its times.
SETTLED_NS = 2_000_000_000
_BUSY_TIMEOUT_S = 1.0
WRITE_EVERY_S = 1.0
# At random times, entries older than this are removed.
FORGET_ODDS = 0.01
_FORGET_AFTER_S = 90 * 86400
_SCHEMA = "CREATE TABLE IF NOT EXISTS checksums (address BLOB PRIMARY KEY, stamp TEXT, sha256 TEXT, noted_at INTEGER)"


def cache_folder() -> Path:
    """Return the folder for this user's files that can be made again: ``~/.cache/...``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "airflow-provider-gpu-cluster"


class Checksums:
    """
    The known checksums of files.

    ::

        with open_checksums() as checksums:
            for path in paths:
                sha256 = checksums.of_file(path)

    :param database: None if there is none; then nothing is remembered.
    """

    def __init__(self, database: sqlite3.Connection | None) -> None:
        self._database = database
        self._new: dict[bytes, tuple[str, str]] = {}
        self._written_at = time.monotonic()

    def of_file(self, path: str) -> str:
        """
        Return the SHA-256 of a local file; read the file unless its checksum is known.

        :raises OSError: the file cannot be read.
        """
        address = os.path.realpath(path)
        stamp = stamp_of(os.stat(path))
        if (known := self.recall(address, stamp)) is not None:
            return known
        with open(path, "rb") as file:
            read = os.fstat(file.fileno())
            sha256, _ = sha256_of(file)
        self.remember(address, read, sha256)
        return sha256

    def knows(self, address: str) -> bool:
        """Return whether a checksum was noted for that address, even if the file has changed since."""
        return self._noted(os.fsencode(address)) is not None

    def recall(self, address: str, stamp: str) -> str | None:
        """Return the SHA-256 noted for that address, if it was noted with the same stamp."""
        noted = self._noted(os.fsencode(address))
        return noted[1] if noted is not None and noted[0] == stamp else None

    def remember(self, address: str, stamp: os.stat_result | str, sha256: str) -> None:
        """
        Note a SHA-256.

        :param stamp: changes with the content. That of a very recent file is not noted, see :data:`SETTLED_NS`.
        """
        if isinstance(stamp, os.stat_result):
            if time.time_ns() - max(stamp.st_mtime_ns, stamp.st_ctime_ns) < SETTLED_NS:
                return
            stamp = stamp_of(stamp)
        self._new[os.fsencode(address)] = (stamp, sha256)
        if time.monotonic() - self._written_at > WRITE_EVERY_S:
            self.write_down()

    def write_down(self) -> None:
        """Write new entries into the database, all at once, because other processes wait meanwhile."""
        with contextlib.suppress(sqlite3.Error):
            if self._database is not None and self._new:
                now = int(time.time())
                rows = [(address, stamp, sha256, now) for address, (stamp, sha256) in self._new.items()]
                with self._database:
                    self._database.executemany("INSERT OR REPLACE INTO checksums VALUES (?, ?, ?, ?)", rows)
                self._new = {}
        self._written_at = time.monotonic()

    def _noted(self, address: bytes) -> tuple[str, str] | None:
        if (new := self._new.get(address)) is not None:
            return new
        with contextlib.suppress(sqlite3.Error):
            if self._database is not None:
                row = self._database.execute(
                    "SELECT stamp, sha256 FROM checksums WHERE address = ?", (address,)
                ).fetchone()
                return None if row is None else (str(row[0]), str(row[1]))
        return None


def stamp_of(status: os.stat_result) -> str:
    """Return a stamp that changes when a file changes."""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


@contextlib.contextmanager
def open_checksums() -> Iterator[Checksums]:
    """Open the known checksums; new ones are written every second, and at the end."""
    database = _open_database()
    checksums = Checksums(database)
    try:
        yield checksums
    finally:
        checksums.write_down()
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                if random.random() < FORGET_ODDS:
                    with database:
                        database.execute("DELETE FROM checksums WHERE noted_at < ?", (time.time() - _FORGET_AFTER_S,))
            database.close()


def _open_database() -> sqlite3.Connection | None:
    path = cache_folder() / "checksums.db"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _connect(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            # It is damaged; everything in it can be computed again.
            path.unlink(missing_ok=True)
            return _connect(path)
    except (OSError, sqlite3.Error):
        return None


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)
    try:
        # A crash of the machine loses only what can be computed again.
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_SCHEMA)
        return database
    except sqlite3.Error:
        database.close()
        raise


def sha256_of(stream: BinaryIO) -> tuple[str, int]:
    """Return the SHA-256 of what is left in a stream, and how many bytes that was."""
    digest = hashlib.sha256()
    size = 0
    while piece := stream.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size
