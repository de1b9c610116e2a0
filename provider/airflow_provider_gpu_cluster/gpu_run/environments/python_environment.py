"""
Python environments for jobs, built once per content and kept under ``.cache/environments``.

An environment sees the system's packages; it adds what the requirements file asks for beyond them. Its key covers the
requirements (with the files they include), the interpreter, and the setup lines, since those may choose the
interpreter or set what builds depend on. A build happens under a lock, in the environment's final place (virtual
environments cannot be moved), and counts only once its end is marked.

uv installs several times faster than pip, but ignores the system's packages (as ``uv venv --help`` says), and so would
download a torch that the system has. Therefore this asks uv what it would install; if the system has some of those
packages, pip does the work.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, Iterator

from .. import protocol
from ..errors import Refused
from ..linux import locks, processes, regular_files
from ..store import records
from ..store.directories import Root
from ..store.interpreter import with_interpreter
from ..store.writing import remove_tree

if TYPE_CHECKING:
    from ..protocol.notes import Interpreter
    from ..protocol.records import Environment, EnvironmentParts

_MARK = "built.json"
_USE_TIMEOUT_S = 2.0
_MOST_BYTES = 1 << 22
_LOG_LINES = 30
_LOG_CHARACTERS = 8000
_INCLUDE = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)[\s=]*(\S+)")
_FOLDER = re.compile(r"^\s*(?:-f|--find-links)[\s=]*(\S+)")
_LOCAL = re.compile(r"^\s*(?:-e\b|--editable\b|\.|/|file:|\S+\s*@\s*file:)")

# Shell lines before the job's own: login shells define `module`, and this is not a login shell (as in run.sh).
_SHELL = """\
set -e
if ! command -v module > /dev/null; then
  for init in /etc/profile.d/lmod.sh /etc/profile.d/z00_lmod.sh /etc/profile.d/modules.sh; do
    if [ -r "$init" ]; then . "$init" || true; break; fi
  done
fi
eval "$1" >&2
shift
exec "$@"
"""
# Start of every program below: they run in the folder of the job's code, but must not import its modules.
_NOT_FROM_HERE = "import sys; sys.path[:] = [path for path in sys.path if path]; "
# What distinguishes two interpreters, and where their packages are.
_ASK = _NOT_FROM_HERE + (
    "import json, os, sysconfig;"
    "print(json.dumps({'executable': sys.executable, 'version': sys.version, 'prefix': sys.prefix,"
    " 'platform': sysconfig.get_platform(), 'is_environment': sys.prefix != sys.base_prefix,"
    " 'packages': sorted({sysconfig.get_path('purelib'), sysconfig.get_path('platlib')})}))"
)
_MODULE = (
    _NOT_FROM_HERE + "import runpy; sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], None, '__main__', True)"
)
_DISTRIBUTIONS = _NOT_FROM_HERE + (
    "import json, os;"
    "print(json.dumps([name.split('-')[0] for path in sys.path if os.path.isdir(path) for name in os.listdir(path)"
    " if name.endswith(('.dist-info', '.egg-info'))]))"
)


class BuildFailed(Exception):
    """An environment could not be built; the message ends with the last lines of the tool that failed."""


def wanted(requirements: str | None, setup: str, python: str | None, code: str) -> EnvironmentParts | None:
    """
    Return the parts of a job's environment; None when it needs none.

    :param requirements: text of the requirements; None takes requirements.txt from the code, if it exists.
    :param code: the folder of the job's code, where relative paths in the requirements start.
    """
    if requirements is None:
        try:
            requirements = _text_of(os.path.join(code, "requirements.txt"))
        except FileNotFoundError:
            return None
    lines = [line.split("#")[0].strip() for line in requirements.splitlines()]
    if not any(lines):
        return None
    includes = _includes(requirements, code)
    everything = "\n".join([requirements, *includes.values()]).splitlines()
    return {
        "requirements": requirements,
        "includes": includes,
        # Requirements in the code change with it, so their environment is only for the code in its present state.
        "private": _state_of(code) if any(_is_local(line) for line in everything) else None,
        "setup": setup,
        "python": python,
    }


def _text_of(path: str) -> str:
    """
    Return the text of a requirements file, or of one that a link leads to.

    :raises Refused: it is no file, or a huge one.
    """
    try:
        text = regular_files.read(path, _MOST_BYTES, follow=True).decode("utf-8", "surrogateescape")
    except regular_files.NotRegular as error:
        raise Refused(
            protocol.SOURCE_ERROR, f"the requirements in {path} cannot be read: it {error.strerror}"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_local(line: str) -> bool:
    folder = _FOLDER.match(line)
    return bool(_LOCAL.match(line)) or (folder is not None and _is_relative(folder.group(1)))


def _is_relative(path: str) -> bool:
    return not os.path.isabs(path) and "://" not in path


def _includes(text: str, folder: str, seen: dict[str, str] | None = None) -> dict[str, str]:
    seen = {} if seen is None else seen
    for line in text.splitlines():
        match = _INCLUDE.match(line)
        path = os.path.normpath(os.path.join(folder, match.group(1))) if match else None
        if path and path not in seen and os.path.isfile(path):
            seen[path] = _text_of(path)
            _includes(seen[path], os.path.dirname(path), seen)
    return seen


def _state_of(folder: str) -> list[Any]:
    """Return a state that changes with any change below a folder."""
    state = []
    for where, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = os.path.join(where, name)
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                state.append([os.path.relpath(path, folder), found.st_size, found.st_mtime_ns])
    return [folder, _hash(state)]


def group(parts: EnvironmentParts) -> str:
    """Return a key that jobs share if their environments are certainly the same; it needs no interpreter."""
    return _hash(
        [parts["requirements"], sorted(parts["includes"].values()), parts["private"], parts["setup"], parts["python"]]
    )


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def needs_its_folder(requirements: str) -> bool:
    """Return whether a text of requirements means something else in another folder."""
    return any(_INCLUDE.match(line) or _is_local(line) for line in requirements.splitlines())


def built_groups(root: Root) -> set[str]:
    """Return the groups, see :func:`group`, of the environments that are built."""
    found = set()
    folder = os.path.join(root.cache, "environments")
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError, ValueError):
                built = records.read_json(mark_of(os.path.join(folder, name)))
                if built is not None and isinstance(built.get("group"), str):
                    found.add(built["group"])
    return found


def build(root: Root, parts: EnvironmentParts, code: str) -> Environment:
    """
    Return the environment for ``parts``, and build it if it does not exist.

    :raises BuildFailed: the interpreter, the virtual environment or the installation failed.
    """
    began = time.monotonic()
    named = os.path.expanduser(parts["python"] or "python3")
    python = shutil.which(parts.get("interpreter") or named)
    path = os.environ.get("PATH", os.defpath)
    if python is not None:
        path = with_interpreter(root, os.path.abspath(python), path)
    # As in run.sh, the Python that the setup lines put first in PATH comes before it.
    asked = named if python is None else "python3"
    shell = _Shell(parts["setup"], code, path)
    interpreter: Interpreter = shell.json([asked, "-c", _ASK], f"asking {named} for its version")
    key = _hash(
        [
            group(parts),
            interpreter["executable"],
            interpreter["version"],
            interpreter["prefix"],
            interpreter["platform"],
        ]
    )
    folder = os.path.join(root.cache, "environments")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, key)
    with _locked(path):
        built: Environment | None = records.read_json(os.path.join(path, _MARK))
        if built is not None:
            os.utime(os.path.join(path, _MARK))
            return {**built, "reused": True, "seconds": round(time.monotonic() - began, 3)}
        remove_tree(path)
        try:
            tool = _make(shell, path, asked, interpreter, parts)
        except BaseException:
            remove_tree(path)
            raise
        built = {"path": path, "key": key, "python": interpreter["executable"], "tool": tool, "built_at": records.now()}
        # This shows that a waiting job needs it, without asking an interpreter.
        built["group"] = group(parts)
        records.write_json(os.path.join(path, _MARK), built)
        return {**built, "reused": False, "seconds": round(time.monotonic() - began, 3)}


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Keep other processes from building an environment or removing it."""
    fd = locks.lock(path + ".lock", timeout_s=None)
    assert fd is not None
    try:
        yield
    finally:
        os.close(fd)


class _Shell:
    """
    Runs commands as the job will run: in its code, after its setup lines.

    :param setup: the setup lines.
    :param code: the folder of the code.
    :param path: the PATH before the setup lines.
    """

    def __init__(self, setup: str, code: str, path: str) -> None:
        self._setup = setup
        self.code = code
        self._env = {**os.environ, "PATH": path}

    def run(self, command: list[str], doing: str) -> str:
        """
        Return the output of a command.

        :raises BuildFailed: the command failed; the message has its last lines.
        """
        done = self._done(command, subprocess.STDOUT)
        output = done.stdout.decode("utf-8", "replace")
        if done.returncode:
            lines = "\n".join(output.strip().splitlines()[-_LOG_LINES:])[-_LOG_CHARACTERS:]
            raise BuildFailed(f"{doing} failed:\n{lines}")
        return output

    def json(self, command: list[str], doing: str) -> Any:
        """
        Return the JSON on the last line of a command's output that holds any.

        :raises BuildFailed: the command failed, or printed no JSON.
        """
        output = self.run(command, doing)
        for line in reversed(output.strip().splitlines()):
            # Warnings may follow it.
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, (dict, list)):
                    return value
        raise BuildFailed(f"{doing} gave no valid answer: {output[-_LOG_CHARACTERS:]}")

    def works(self, command: list[str]) -> bool:
        return self._done(command, subprocess.DEVNULL).returncode == 0

    def _done(self, command: list[str], errors: int) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", _SHELL, "bash", self._setup, *command],
            cwd=self.code,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            # An installer that outlived its build would write into the folder of the next one.
            preexec_fn=_die_with_builder,
        )


def _die_with_builder() -> None:
    processes.die_with_parent(signal.SIGKILL)


def _make(shell: _Shell, path: str, asked: str, interpreter: Interpreter, parts: EnvironmentParts) -> str:
    """Make the virtual environment and install into it; return the name of the tool that installed."""
    # Without pip this takes a moment, and works where the system lacks ensurepip (Debian's python3 without -venv).
    make = [asked, "-c", _MODULE, "venv", "--system-site-packages", "--without-pip", path]
    shell.run(make, "making a virtual environment")
    if interpreter["is_environment"]:
        # The interpreter is itself in a virtual environment, whose packages venv does not pass on.
        version = os.listdir(os.path.join(path, "lib"))[0]
        lines = [f"import site; site.addsitedir({folder!r})\n" for folder in interpreter["packages"]]
        with open(os.path.join(path, "lib", version, "site-packages", "parent.pth"), "w", encoding="utf-8") as file:
            file.writelines(lines)
    requirements = os.path.join(path, "requirements.txt")
    with open(requirements, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(_absolute_paths(parts["requirements"], shell.code))
    python = os.path.join(path, "bin", "python")
    uv = find_uv()
    pip = _pip(shell, python) if uv is None or _overlaps(shell, uv, python, requirements) else None
    if uv is not None and pip is None:
        shell.run([uv, "pip", "install", "--python", python, "-r", requirements], "installing the requirements with uv")
        return "uv"
    if pip is None:
        raise BuildFailed(
            "the cluster has neither uv nor pip for {}; install one of them, or remove the requirements".format(
                interpreter["executable"]
            )
        )
    install = [*pip, "install", "--disable-pip-version-check", "--no-input", "-r", requirements]
    shell.run(install, "installing the requirements with pip")
    return "pip"


def _absolute_paths(text: str, code: str) -> str:
    """Make the relative paths of included files and folders absolute, since the text is read from another folder."""

    def absolute(line: str) -> str:
        match = _INCLUDE.match(line) or _FOLDER.match(line)
        if match and _is_relative(match.group(1)):
            return line[: match.start(1)] + os.path.join(code, match.group(1)) + line[match.end(1) :]
        return line

    return "\n".join(absolute(line) for line in text.splitlines()) + "\n"


def find_uv() -> str | None:
    """Return the path of uv; its installer puts it where logins that run a single command do not look."""
    return shutil.which("uv") or shutil.which("uv", path=os.path.expanduser("~/.local/bin:~/.cargo/bin"))


def _overlaps(shell: _Shell, uv: str, python: str, requirements: str) -> bool:
    """Return whether the system has some of the packages that uv would install."""
    compile = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", python, requirements]
    try:
        resolved = shell.run(compile, "resolving the requirements with uv")
    except BuildFailed:
        # If uv finds no solution, try pip; if it finds none either, its messages are the ones that people know.
        return True
    there = {_canonical(name) for name in shell.json([python, "-c", _DISTRIBUTIONS], "listing the system's packages")}
    names = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line) for line in resolved.splitlines())
    return any(_canonical(name.group()) in there for name in names if name)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip(shell: _Shell, python: str) -> list[str] | None:
    """Return the command that runs an environment's pip: the system's, or one installed into it; None without pip."""
    pip = [python, "-c", _MODULE, "pip"]
    if shell.works([python, "-c", _NOT_FROM_HERE + "import pip"]):
        return pip
    if shell.works([python, "-c", _MODULE, "ensurepip", "--default-pip"]):
        return pip
    return None


def is_built(environment: Environment) -> bool:
    """Return whether an environment that was built still exists."""
    return os.path.exists(mark_of(environment["path"]))


def mark_of(path: str) -> str:
    """Return the path of an environment's mark, whose time of modification says when a job last used it."""
    return os.path.join(path, _MARK)


def use(environment: Environment) -> None:
    """
    Note that a job uses an environment, so that garbage collection keeps it.

    :raises OSError: it no longer exists, or is being built again.
    """
    path = environment["path"]
    lock = regular_files.open_to_read(path + ".lock")
    try:
        # The process that removes environments holds this exclusively, for a moment.
        if not locks.lock_file(lock, timeout_s=_USE_TIMEOUT_S, exclusive=False):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path)
        os.utime(mark_of(path))
    finally:
        os.close(lock)
