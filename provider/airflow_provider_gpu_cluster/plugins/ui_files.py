"""The files of the pages: plain ES modules in ``ui/``, which browsers load as they are."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

UI = Path(__file__).parent / "ui"


@cache
def fingerprint() -> str:
    """
    Return a name for the content of these files; their addresses have it, so browsers may keep them.

    It is that of when the process began: an upgrade of the package must not part what is told from what is served.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in UI.rglob("*") if path.is_file()):
        digest.update(path.relative_to(UI).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
