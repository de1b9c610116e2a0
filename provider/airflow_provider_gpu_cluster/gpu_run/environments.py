"""
Python environments for jobs, built once per content and kept under ``.cache/environments``.

An environment sees the system's packages; what it adds is what the requirements file asks for beyond them. Its key
covers the requirements (with the files they include), the interpreter, and the setup lines, since those may choose
the interpreter or set what builds depend on. A build happens under a lock, in the environment's final place (virtual
environments cannot be moved), and counts only when the mark of its end is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from typing import Any

from . import records
from .store import Root

_MARK = "built.json"
_LOG_LINES = 30
_INCLUDE = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)[\s=]*(\S+)")
_LOCAL = re.compile(r"^\s*(?:-e\b|--editable\b|\.|/|file:|\S+\s*@\s*file:)")

# Printed by the interpreter the job will use: what makes two interpreters different, and where their packages are.
_ASK = (
    "import json, site, sys, sysconfig;"
    "print(json.dumps({'executable': sys.executable, 'version': sys.version, 'prefix': sys.prefix,"
    " 'base_prefix': sys.base_prefix, 'purelib': sysconfig.get_path('purelib')}))"
)


class BuildFailed(Exception):
    """An environment could not be built; the message ends with the last lines of the tool that failed."""


def wanted(requirements: str | None, setup: str, python: str | None, code: str) -> dict[str, Any] | None:
    """
    Return what a job's environment is made of; None when it needs none.

    :param requirements: text of the requirements; None takes requirements.txt from the code, if it is there.
    :param code: the job's folder of code, which relative paths in the requirements are meant from.
    """
    if requirements is None:
        try:
            with open(os.path.join(code, "requirements.txt"), encoding="utf-8") as file:
                requirements = file.read()
        except FileNotFoundError:
            return None
    lines = [line.split("#")[0].strip() for line in requirements.splitlines()]
    if not any(lines):
        return None
    return {
        "requirements": requirements,
        "includes": _includes(requirements, code),
        # Requirements that are folders of the code itself change with it, so their environment is not shared.
        "private": code if any(_LOCAL.match(line) for line in lines) else None,
        "setup": setup,
        "python": python,
    }


def _includes(text: str, folder: str, seen: dict[str, str] | None = None) -> dict[str, str]:
    seen = {} if seen is None else seen
    for line in text.splitlines():
        match = _INCLUDE.match(line)
        path = os.path.normpath(os.path.join(folder, match.group(1))) if match else None
        if path and path not in seen and os.path.isfile(path):
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                seen[path] = file.read()
            _includes(seen[path], os.path.dirname(path), seen)
    return seen


def group(parts: dict[str, Any]) -> str:
    """Return a key that jobs share when their environments are surely the same; known without any interpreter."""
    return _hash(
        [parts["requirements"], sorted(parts["includes"].values()), parts["private"], parts["setup"], parts["python"]]
    )


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def build(root: Root, parts: dict[str, Any], code: str) -> dict[str, Any]:
    """
    Return the environment for ``parts``, built now unless it is there.

    :raises BuildFailed: the interpreter, the virtual environment or the installation failed.
    """
    began = time.monotonic()
    interpreter = _interpreter(parts, code)
    key = _hash([group(parts), interpreter["executable"], interpreter["version"], interpreter["prefix"]])
    folder = os.path.join(root.cache, "environments")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, key)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = records.read_json(os.path.join(path, _MARK))
        if built is not None:
            return dict(built, reused=True, seconds=round(time.monotonic() - began, 3))
        shutil.rmtree(path, ignore_errors=True)
        try:
            tool = _make(path, interpreter, parts, code)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        built = {"path": path, "key": key, "python": interpreter["executable"], "tool": tool, "built_at": records.now()}
        records.write_json(os.path.join(path, _MARK), built)
        return dict(built, reused=False, seconds=round(time.monotonic() - began, 3))


def _interpreter(parts: dict[str, Any], code: str) -> dict[str, Any]:
    output = _shell(parts, ["-c", _ASK], code, "asking the interpreter for its version")
    try:
        value: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        return value
    except (ValueError, IndexError):
        raise BuildFailed(
            "the interpreter {!r} gave no proper answer: {}".format(parts["python"] or "python3", output)
        ) from None


def _shell(parts: dict[str, Any], arguments: list[str], code: str, doing: str) -> str:
    """Run the job's interpreter after the job's setup lines."""
    script = 'set -e\n{}\nexec "$@"'.format(parts["setup"])
    python = os.path.expanduser(parts["python"] or "python3")
    return _run(["bash", "-c", script, "bash", python, *arguments], code, doing)


def _make(path: str, interpreter: dict[str, Any], parts: dict[str, Any], code: str) -> str:
    """Make the virtual environment and install into it; return the name of the tool that installed."""
    # Without pip it is made in a moment, also where the system lacks ensurepip (Debian's python3 without -venv).
    _shell(parts, ["-m", "venv", "--system-site-packages", "--without-pip", path], code, "making a virtual environment")
    if interpreter["prefix"] != interpreter["base_prefix"]:
        # The interpreter is itself in a virtual environment, whose packages venv does not hand on.
        version = os.listdir(os.path.join(path, "lib"))[0]
        with open(os.path.join(path, "lib", version, "site-packages", "parent.pth"), "w", encoding="utf-8") as file:
            file.write(interpreter["purelib"] + "\n")
    requirements = os.path.join(path, "requirements.txt")
    with open(requirements, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(_absolute_includes(parts["requirements"], code))
    python = os.path.join(path, "bin", "python")
    uv = shutil.which("uv")
    if uv:
        tool = [uv, "pip", "install", "--python", python]
    else:
        tool = [*_pip(interpreter, path, code), "install", "--disable-pip-version-check", "--no-input"]
    doing = "installing the requirements with {}".format("uv" if uv else "pip")
    script = 'set -e\n{}\nexec "$@"'.format(parts["setup"])
    _run(["bash", "-c", script, "bash", *tool, "-r", requirements], code, doing)
    return "uv" if uv else "pip"


def _absolute_includes(text: str, code: str) -> str:
    """Rewrite the relative paths of included files, since the requirements are installed from another folder."""

    def absolute(line: str) -> str:
        match = _INCLUDE.match(line)
        if match and not os.path.isabs(match.group(1)) and "://" not in match.group(1):
            return line[: match.start(1)] + os.path.join(code, match.group(1)) + line[match.end(1) :]
        return line

    return "\n".join(absolute(line) for line in text.splitlines()) + "\n"


def _pip(interpreter: dict[str, Any], path: str, code: str) -> list[str]:
    python = os.path.join(path, "bin", "python")
    if _works([python, "-m", "pip", "--version"]):
        return [python, "-m", "pip"]
    if _works([python, "-m", "ensurepip", "--version"]):
        _run([python, "-m", "ensurepip", "--default-pip"], code, "installing pip")
        return [python, "-m", "pip"]
    raise BuildFailed(
        "the cluster has neither uv nor pip for {}; install one of them, or remove the requirements".format(
            interpreter["executable"]
        )
    )


def _works(command: list[str]) -> bool:
    return (
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
        == 0
    )


def _run(command: list[str], folder: str, doing: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise BuildFailed(f"{doing} failed: {error}") from error
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise BuildFailed("{} failed:\n{}".format(doing, "\n".join(output.strip().splitlines()[-_LOG_LINES:])))
    return output


def is_built(environment: dict[str, Any]) -> bool:
    """Tell whether an environment that was built once is still there."""
    with contextlib.suppress(OSError):
        return os.path.exists(os.path.join(environment["path"], _MARK))
    return False
