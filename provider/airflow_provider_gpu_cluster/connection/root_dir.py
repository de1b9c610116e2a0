"""
The ``root_dir`` of a connection, as text for the cluster's shell, which knows what its variables mean there.

A shell sees only names of variables and users that were checked here; everything else is quoted.
"""

from __future__ import annotations

import re
import shlex

from airflow_provider_gpu_cluster.gpu_run import protocol

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_OTHER_HOME = re.compile(r"~[A-Za-z_][A-Za-z0-9_.-]*(?=/|\Z)")

VALID = "a path whose $ begin variables such as $SCRATCH or ${WORK}, and whose ~ begins it as in ~/jobs or ~user/jobs"


def is_valid(root_dir: str) -> bool:
    """Return whether it is a path, perhaps with variables."""
    if "$" in _VARIABLE.sub("", root_dir):
        return False
    return not root_dir.startswith("~") or f"{root_dir}/".startswith("~/") or bool(_OTHER_HOME.match(root_dir))


def is_expanded_there(root_dir: str) -> bool:
    """Return whether only the cluster knows which folder it is, apart from the user's own home."""
    return "$" in root_dir or bool(_OTHER_HOME.match(root_dir))


def shell_text(root_dir: str) -> str:
    """
    Return text for ``sh`` that sets ``r`` to the folder's path; or says what is wrong with it, and exits.

    It has one line and no exclamation mark, since login shells of all kinds pass it on.
    """
    if not is_expanded_there(root_dir):
        return f"r={quoted_path(root_dir)}; "
    home = _OTHER_HOME.match(root_dir)
    parts, text, end = [], [], 0
    if home is not None:
        end = home.end()
        parts.append(f'r={home.group()}; case "$r" in "~"*) {_fails(f"there is no user {home.group()[1:]}")} esac; ')
        text.append('"$r"')
    for match in _VARIABLE.finditer(root_dir):
        name = match.group(1) or match.group(2)
        parts.append(f'[ -n "${{{name}:-}}" ] || {{ {_fails(f"the variable {name} is not set in a login")} }}; ')
        text += [shlex.quote(root_dir[end : match.start()]), f'"${{{name}}}"']
        end = match.end()
    text.append(shlex.quote(root_dir[end:]))
    if root_dir.startswith("~/"):
        text[0] = f'"$HOME"{shlex.quote(root_dir[1 : _first(root_dir)])}'
    elif not root_dir.startswith(("/", "$", "~")):
        text[0] = f'"$HOME"/{text[0]}'
    parts.append(f"r={''.join(text)}; ")
    parts.append(f'case "$r" in /*) ;; *) {_fails("it is no absolute path", shown=True)} esac; ')
    return "".join(parts)


def _first(root_dir: str) -> int:
    match = _VARIABLE.search(root_dir)
    return len(root_dir) if match is None else match.start()


def _fails(why: str, *, shown: bool = False) -> str:
    text = f'{shlex.quote(why)}": $r"' if shown else shlex.quote(why)
    return f"echo {text} >&2; exit {protocol.EXIT_NO_ROOT};"


def quoted_path(path: str) -> str:
    """Quote a path for sh; ``~/`` is the home directory on the cluster, where relative paths start, too."""
    if path == "~":
        return '"$HOME"'
    if path.startswith("/"):
        return shlex.quote(path)
    return '"$HOME"/' + shlex.quote(path.removeprefix("~/"))
