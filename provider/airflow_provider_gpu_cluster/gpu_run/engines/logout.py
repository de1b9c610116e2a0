"""What happens to a user's processes when the user logs out."""

from __future__ import annotations

import os
import re

from ..linux import processes


def logout_warnings() -> list[str]:
    """Return a warning if this host ends them."""
    if not _kills_user_processes():
        return []
    return [
        "systemd ends a user's processes at logout here (KillUserProcesses=yes in logind.conf), and jobs with them;"
        f" ask for 'loginctl enable-linger {processes.user()}'"
    ]


def _kills_user_processes() -> bool:
    try:
        with open("/etc/systemd/logind.conf", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    lingers = os.path.exists(os.path.join("/var/lib/systemd/linger", processes.user()))
    return bool(re.search(r"(?mi)^\s*KillUserProcesses\s*=\s*(yes|true|1|on)\s*$", text)) and not lingers
