"""What lies under ``.cache`` and no job was given for long: contents, Python environments, uploads that broke off."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Callable, Iterator

from ..environments import python_environment
from ..linux import locks
from ..store import records
from ..store.directories import Root
from .old_jobs import Needs
from .trash import Trash, size_of

if TYPE_CHECKING:
    from ..protocol.records import Environment

_DRAFTS_S = 3600.0
_PARTS_S = 86400.0
# Use is noted no more often than this, so it may have been later by as much.
_NOTED_S = 3600.0
_HEX2, _HEX62 = re.compile(r"[0-9a-f]{2}\Z"), re.compile(r"[0-9a-f]{62}\Z")
_TAG = re.compile(r"[0-9A-Za-z._-]+\Z")
_MANIFEST = re.compile(r"[^.].*\.json\Z")
_PACK = re.compile(r"[0-9a-f]{32}\.(index|data|tmp)\Z")
_KEY = re.compile(r"[0-9a-f]{20}\Z")

Failed = Callable[[str, OSError], None]


class OldCache:
    """
    Clears the cache of a root.

    :param older_than_s: for how long something must have been of no use, in seconds.
    :param now: in seconds since the epoch.
    :param dry_run: tell only what would be removed.
    :param failed: told of what cannot be removed, and why.
    """

    def __init__(self, root: Root, older_than_s: float, now: float, dry_run: bool, failed: Failed) -> None:
        self._folder = root.cache
        self._older_than_s = older_than_s
        self._now = now
        self._dry_run = dry_run
        self._failed = failed

    # -- contents

    def entries(self) -> Iterator[int]:
        """Remove contents that no job was given for long, and what refers to them; yield the bytes each has freed."""
        before = self._now - self._older_than_s - _NOTED_S
        for folder in self._list(self._at("contents"), _HEX2):
            for path in self._list(folder, _HEX62):
                yield from self._remove(path, before, stat.S_ISREG)
        for path in self._list(self._at("manifests"), _MANIFEST):
            yield from self._remove(path, before, stat.S_ISREG)
        for path in self._list(self._at("tags"), _TAG):
            # One that leads nowhere is of no use at any age.
            yield from self._remove(path, before if os.path.exists(path) else self._now, stat.S_ISLNK)

        yield from self._packs(before)

    def _packs(self, before: float) -> Iterator[int]:
        """Remove packs; what is in one goes together."""
        folder = self._at("packs")
        for path in self._list(folder, _PACK):
            name, _, suffix = path.rpartition(".")
            index = name + ".index"
            if suffix == "index":
                freed = list(self._remove(path, before, stat.S_ISREG))
                if freed:
                    yield sum(freed) + sum(self._remove(name + ".data", self._now + 1, stat.S_ISREG))
            elif not os.path.lexists(index):
                # Whoever wrote it died before the index came.
                yield from self._remove(path, self._now - _DRAFTS_S)

    def parts(self) -> Iterator[int]:
        """Remove what has arrived in part and nobody goes on with, and drafts; yield the bytes each has freed."""
        folder = self._at("incoming")
        keys = set()
        for path in self._list(folder, _TAG):
            if path.endswith(".tmp"):
                yield from self._remove(path, self._now - _DRAFTS_S)
            else:
                keys.add(re.sub(r"\.(lock|ranges)\Z", "", path))
        for path in sorted(keys):
            try:
                yield from self._remove_part(path)
            except OSError as error:
                self._failed(path, error)

    def _remove_part(self, path: str) -> Iterator[int]:
        before = self._now - min(self._older_than_s, _PARTS_S)
        lock = None if self._dry_run else locks.lock(path + ".lock")
        if lock is None and (not self._dry_run or locks.is_locked(path + ".lock")):
            return
        try:
            # Who writes into it has locked the bytes themselves.
            if not locks.is_locked(path) and all(_changed(path + suffix) < before for suffix in ("", ".ranges")):
                # The lock comes last: who gets it next finds nothing of what was.
                for suffix in (".ranges", "", ".lock"):
                    yield from self._remove(path + suffix, self._now + 1)
        finally:
            if lock is not None:
                os.close(lock)

    # -- environments

    def environments(self, needs: Needs, trash: Trash) -> Iterator[str]:
        """
        Put environments that no job was given for long into the trash; yield their paths.

        :param needs: of the jobs that wait or run.
        """
        for path in self._list(self._at("environments"), _KEY):
            try:
                if self._is_old(path, needs) and self._discard(path, needs, trash):
                    yield path
            except (OSError, ValueError, TypeError, AttributeError) as error:
                self._failed(path, error if isinstance(error, OSError) else OSError(str(error)))

    def _is_old(self, path: str, needs: Needs) -> bool:
        if os.path.realpath(path) in needs.environments:
            return False
        built: Environment | None = records.read_json(python_environment.mark_of(path))
        if built is not None and needs.groups and built.get("group", "") in (*needs.groups, ""):
            return False
        used = max(_changed(path), _changed(python_environment.mark_of(path)))
        return used < self._now - max(self._older_than_s, _NOTED_S)

    def _discard(self, path: str, needs: Needs, trash: Trash) -> bool:
        if self._dry_run:
            return not locks.is_locked(path + ".lock")
        lock = locks.lock(path + ".lock")
        if lock is None:
            # It is being built, or given to a job.
            return False
        try:
            if not self._is_old(path, needs):
                return False
            trash.take(path)
            os.unlink(path + ".lock")
            return True
        finally:
            os.close(lock)

    # --

    def _at(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def _list(self, folder: str, names: re.Pattern[str]) -> list[str]:
        """Return what is in a folder of the cache under a name of the cache's; a link is no such folder."""
        try:
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                return []
            return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if names.match(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            self._failed(folder, error)
            return []

    def _remove(self, path: str, before: float, kind: Callable[[int], bool] | None = None) -> Iterator[int]:
        """Remove what was last used before a time, and is of the kind; yield the bytes that has freed."""
        try:
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode) or found.st_mtime >= before or (kind and not kind(found.st_mode)):
                return
            if not self._dry_run:
                os.unlink(path)
            yield size_of(found)
        except FileNotFoundError:
            return
        except OSError as error:
            self._failed(path, error)


def _changed(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except FileNotFoundError:
        return 0.0
