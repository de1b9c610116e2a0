"""What systemd does to a user's processes when the user logs out; see logind.conf(5)."""

from __future__ import annotations

import glob
import os
from typing import NamedTuple

from . import processes

_MAIN = "logind.conf"
# Of files of one name, only the one in the first of these folders counts.
_FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")
_YES = ("1", "yes", "y", "true", "t", "on")
_LINGER = "var/lib/systemd/linger"
_MOST_BYTES = 1 << 16


class _Setting(NamedTuple):
    """A value, and the file that sets it."""

    value: str
    path: str


class Logout(NamedTuple):
    """
    How systemd ends users' processes at logout.

    :param cause: the setting, and its file.
    :param spares_user: whether it leaves this user's processes alone, as nobody has said otherwise about root.
    """

    cause: str
    spares_user: bool

    def __str__(self) -> str:
        but = ", except root's as long as KillExcludeUsers is not set" if self.spares_user else ""
        return f"systemd ends a user's processes at logout here ({self.cause}){but}"


def logout_warnings() -> list[str]:
    """Return a warning if this host ends users' processes."""
    logout = logout_of_user()
    if logout is None:
        return []
    return [str(logout) if logout.spares_user else f"{logout}, and jobs with them; {_remedy()}"]


def with_logout(message: str) -> str:
    """Return a message about a process whose end is unexplained, with the remark that a logout may explain it."""
    logout = logout_of_user()
    if logout is None:
        return message
    return f"{message}; {logout}" + ("" if logout.spares_user else f", which may be why: {_remedy()}")


def _remedy() -> str:
    user = processes.user()
    return f"ask for 'loginctl enable-linger {user}', or for KillExcludeUsers={user}"


def logout_of_user(root: str = "/") -> Logout | None:
    """
    Return how systemd ends users' processes at logout; None when it does not end this user's.

    :param root: where the file system begins.
    """
    user = processes.user()
    if os.path.exists(os.path.join(root, _LINGER, user)):
        return None
    kill, excluded, only = (_last(root, name) for name in ("KillUserProcesses", "KillExcludeUsers", "KillOnlyUsers"))
    if excluded is not None and user in excluded.value.split():
        return None
    spares_user = excluded is None and user == "root"
    if only is not None and only.value:
        return Logout(f"KillOnlyUsers={only.value} in {only.path}", spares_user) if user in only.value.split() else None
    if kill is not None and kill.value.lower() in _YES:
        return Logout(f"KillUserProcesses={kill.value} in {kill.path}", spares_user)
    return None


def _last(root: str, name: str) -> _Setting | None:
    """Return the value that counts of a setting; the values of a list that is set several times are added up."""
    found: _Setting | None = None
    for path in _files(root):
        for key, value in _assignments(os.path.join(root, path.lstrip("/"))):
            if key == name:
                before = found.value if found is not None and name != "KillUserProcesses" and value else ""
                found = _Setting(f"{before} {value}".strip(), path)
    return found


def _files(root: str) -> list[str]:
    """Return the files of settings, each read after those that it overrides."""
    mains = [os.path.join(folder, _MAIN) for folder in _FOLDERS]
    main = [path for path in mains if os.path.exists(os.path.join(root, path.lstrip("/")))][:1]
    drop_ins: dict[str, str] = {}
    for folder in _FOLDERS:
        for found in glob.glob(os.path.join(root, folder.lstrip("/"), f"{_MAIN}.d", "*.conf")):
            name = os.path.basename(found)
            drop_ins.setdefault(name, os.path.join(folder, f"{_MAIN}.d", name))
    return main + [path for _, path in sorted(drop_ins.items())]


def _assignments(path: str) -> list[tuple[str, str]]:
    """Return the settings of one file, in order."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_MOST_BYTES).replace("\\\n", " ").splitlines()
    except OSError:
        return []
    found = []
    section = ""
    for line in map(str.strip, lines):
        if line.startswith("["):
            section = line
        elif section == "[Login]" and line[:1] not in ("#", ";"):
            key, equals, value = line.partition("=")
            if equals:
                found.append((key.strip(), value.strip()))
    return found
