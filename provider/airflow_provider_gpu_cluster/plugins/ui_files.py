"""The files of the pages: plain ES modules in ``ui/``, which browsers load as they are."""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache
from pathlib import Path

UI = Path(__file__).parent / "ui"
# The modules that are loaded when they are needed, by main.js.
PAGES = ("./clusters/page.js", "./job/page.js", "./jobs/page.js")
_IMPORT = re.compile(r'^(?:import|export)\b[^;]*?\bfrom "(\.[^"]+)";', re.MULTILINE)


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


def needed(module: str) -> list[str]:
    """Return the modules that one of them needs, itself first, by their paths from ``ui/``."""
    found = [module]
    for one in found:
        for path in _IMPORT.findall((UI / one).read_text(encoding="utf-8")):
            other = "./" + os.path.normpath(os.path.join(os.path.dirname(one), path))
            if other not in found:
                found.append(other)
    return found
