"""
The one Python of a cluster: the interpreter that runs this program is what jobs find as ``python3`` and ``python``.

The names lead to it through small scripts in a folder at the beginning of PATH. Links would not do, since an
interpreter finds its virtual environment beside the path that it was called by.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil

from .directories import Root
from .writing import write_text

_NAMES = ("python3", "python")


def with_interpreter(root: Root, interpreter: str, path: str) -> str:
    """
    Return a PATH in which ``python3`` is an interpreter, and ``python`` is no other.

    :param interpreter: its absolute path.
    :param path: the PATH so far.
    :raises OSError: the scripts cannot be written.
    """
    found = {name: shutil.which(name, path=path) for name in _NAMES}
    if _is(found["python3"], interpreter) and (found["python"] is None or _is(found["python"], interpreter)):
        return path
    # Loaded where it is needed, since most calls do not.
    import hashlib

    folder = os.path.join(root.own, "python", hashlib.sha256(os.fsencode(interpreter)).hexdigest()[:12])
    for name in _NAMES:
        script = os.path.join(folder, name)
        if not os.access(script, os.X_OK):
            os.makedirs(folder, exist_ok=True)
            _write(script, f'#!/bin/sh\nexec {shlex.quote(interpreter)} "$@"\n')
    return folder + os.pathsep + path


def _is(found: str | None, interpreter: str) -> bool:
    """Return whether a program is an interpreter, by the same name or another in the same folder."""
    if found is None or os.path.dirname(found) != os.path.dirname(interpreter):
        return False
    return os.path.realpath(found) == os.path.realpath(interpreter)


def _write(path: str, text: str) -> None:
    draft = f"{path}.{os.getpid()}"
    write_text(draft, text)
    os.chmod(draft, 0o700)
    with contextlib.suppress(FileNotFoundError):
        # Another process may have been quicker.
        os.replace(draft, path)
