"""Contents, environments and partial uploads under ``.cache`` that no job was given for a long time."""

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
# Use is noted no more often than this, so the last use may be this much later than noted.
_NOTED_S = 3600.0
_HEX2, _HEX62 = re.compile(r"[0-9a-f]{2}\Z"), re.compile(r"[0-9a-f]{62}\Z")
_TAG = re.compile(r"[0-9A-Za-z._-]+\Z")
_MANIFEST = re.compile(r"[^.].*\.json\Z")
_PACK = re.compile(r"[0-9a-f]{32}\.(index|data|tmp)\Z")
_KEY = re.compile(r"[0-9a-f]{20}\Z")

Failed = Callable[[str, OSError], None]


class OldCache:
    """
    Removes old entries from the cache of a root.

    :param older_than_s: how long an entry must have been unused, in seconds.
    :param now: in seconds since the epoch.
    :param dry_run: remove nothing, only report.
    :param failed: called with a path that cannot be removed, and why.
    """

    def __init__(self, root: Root, older_than_s: float, now: float, dry_run: bool, failed: Failed) -> None:
        self._folder = root.cache
        self._older_than_s = older_than_s
        self._now = now
        self._dry_run = dry_run
        self._failed = failed

    # -- contents

    def entries(self) -> Iterator[int]:
        """Remove contents that no job was given for long, and their tags; yield the bytes that each has freed."""
        before = self._now - self._older_than_s - _NOTED_S
        for folder in self._list(self._at("contents"), _HEX2):
            for path in self._list(folder, _HEX62):
                yield from self._remove(path, before, stat.S_ISREG)
        for path in self._list(self._at("manifests"), _MANIFEST):
            yield from self._remove(path, before, stat.S_ISREG)
        for path in self._list(self._at("tags"), _TAG):
            # A dangling link is useless at any age.
            yield from self._remove(path, before if os.path.exists(path) else self._now, stat.S_ISLNK)

        yield from self._packs(before)

    def _packs(self, before: float) -> Iterator[int]:
        """Remove packs, each as a whole."""
        folder = self._at("packs")
        for path in self._list(folder, _PACK):
            name, _, suffix = path.rpartition(".")
            index = name + ".index"
            if suffix == "index":
                freed = list(self._remove(path, before, stat.S_ISREG))
                if freed:
                    yield sum(freed) + sum(self._remove(name + ".data", self._now + 1, stat.S_ISREG))
            elif not os.path.lexists(index):
                # The process that wrote it died before it wrote the index.
                yield from self._remove(path, self._now - _DRAFTS_S)

    def parts(self) -> Iterator[int]:
        """Remove partial contents that no process continues, and drafts; yield the bytes that each has freed."""
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
            # A process that writes into it has locked the bytes themselves.
            if not locks.is_locked(path) and all(_changed(path + suffix) < before for suffix in ("", ".ranges")):
                # The lock comes last, so that its next holder finds nothing else.
                for suffix in (".ranges", "", ".lock"):
                    yield from self._remove(path + suffix, self._now + 1)
        finally:
            if lock is not None:
                os.close(lock)

    # -- environments

    def environments(self, needs: Needs, trash: Trash) -> Iterator[str]:
        """
        Move environments that no job was given for long to the trash; yield their paths.

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
        """Return the paths in a folder of the cache whose names are the cache's; none if the folder is a link."""
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
        """Remove a path of that kind that was last used before a time; yield the bytes that this has freed."""
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
