"""
Processes: their identity, their descendants, their memory use, and how to end them all.

Only the kernel's word proves that a process has ended: that there is none of that number, or that the one of that
number started at another time. What cannot be looked at (/proc is mounted with ``hidepid``, this process has too many
open files) may be alive.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import pwd
import signal
import sys
import time
from typing import TYPE_CHECKING, Callable, Collection, Iterable, Mapping

from ..errors import traceback_text

if TYPE_CHECKING:
    from ..protocol.records import ProcessIdentity

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG = 1
_LOOKS = 4
_PR_SET_CHILD_SUBREAPER = 36


def boot_id() -> str:
    """Return the id that the kernel chose at boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def booted_at() -> float:
    """Return when the kernel was started, in seconds since the epoch."""
    with open("/proc/stat", encoding="ascii") as file:
        return float(next(line.split()[1] for line in file if line.startswith("btime ")))


def hostname() -> str:
    """Return the name of this host."""
    return os.uname().nodename


def user() -> str:
    """Return the name of this process's user, or the number where the host has no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def identity(pid: int | None = None) -> ProcessIdentity:
    """
    Return what identifies a process among all others, on any host, before and after a reboot.

    :param pid: the process, which may have ended but must not have been waited for; None for this one. If there is
        no such process, or it cannot be looked at, its ``start`` is None.
    """
    fields = None
    with contextlib.suppress(OSError):
        fields = _stat(os.getpid() if pid is None else pid)
    start = None if fields is None else int(fields[19])
    return {"pid": pid or os.getpid(), "start": start, "boot": boot_id(), "host": hostname()}


def start_ticks(pid: int) -> int | None:
    """
    Return when a process started, in ticks since boot; None when there is no such live process.

    :raises OSError: there is one, and it cannot be looked at.
    """
    fields = _stat(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def is_alive(who: ProcessIdentity) -> bool | None:
    """
    Return whether the process with that :func:`identity` still runs.

    :return: None when that cannot be determined: it ran on another host, or it cannot be looked at.
    """
    if who["host"] != hostname():
        return None
    try:
        start = start_ticks(who["pid"])
        if start is None or who["boot"] != boot_id():
            return False
    except OSError:
        return None
    return None if who["start"] is None else start == who["start"]


def why_unseen(pid: int) -> str:
    """Return why a process cannot be looked at; an empty text when it can, or has ended."""
    try:
        boot_id()
        _stat(pid)
    except OSError as error:
        return f"{error.filename or '/proc'}: {error.strerror or error}"
    return ""


def _stat(pid: int) -> list[str] | None:
    """
    Return the fields of /proc/<pid>/stat after the command name, the state first; None when there is no such process.

    :raises OSError: there is one, and it cannot be looked at.
    """
    path = f"/proc/{pid}/stat"
    try:
        with open(path, "rb") as file:
            fields = file.read().rpartition(b")")[2].decode("ascii", "replace").split()
        unseen = None if len(fields) > 19 else OSError(errno.EIO, "it does not say what it should", path)
    except OSError as error:
        unseen = error
    if unseen is None:
        return fields
    # Where /proc hides other users' processes, it says that there is none.
    if exists(pid):
        raise unseen
    return None


def exists(pid: int) -> bool:
    """Return whether there is a process of that number, which may be a zombie."""
    try:
        # To other numbers the call means groups of processes.
        os.kill(pid if pid > 0 else sys.maxsize, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # It may not be signalled, so it is there.
        return True
    return True


def has_ended(pid: int) -> bool:
    """Return whether it is certain that there is no live process of that number."""
    try:
        return start_ticks(pid) is None
    except OSError:
        return False


def become_subreaper() -> None:
    """Become the parent of processes below this one that lose theirs, so that they can still be found and ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent dies, for whatever reason."""
    _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> None:
    # Imported late: most of this program's processes answer one request, and do not need it.
    import ctypes

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def start_copy(work: Callable[[], object]) -> int:
    """Do some work in a copy of this process that ends after it; return the copy's id."""
    pid = os.fork()
    if pid:
        return pid
    exit_code = 1
    try:
        work()
        exit_code = 0
    except BaseException:
        sys.stderr.write(traceback_text())
        sys.stderr.flush()
    finally:
        os._exit(exit_code)


def rename(*words: str) -> None:
    """
    Show another command line in ``ps``, cut to the length of the original one.

    The command line is where the kernel has put it, in this process's own memory (proc(5): ``arg_start``, ``arg_end``).
    """
    import ctypes

    try:
        fields = _stat(os.getpid())
    except OSError:
        return
    if fields is None or len(fields) < 47:
        return
    start, end = int(fields[45]), int(fields[46])
    line = b"".join(os.fsencode(word) + b"\0" for word in words)[: max(0, end - start - 1)]
    if start:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, line, len(line))


def close_files(keep: Collection[int]) -> None:
    """
    Close the open files of this process, which is a copy of another and goes on when that one ends.

    Those of the three standard ones that are not kept become /dev/null: otherwise files opened later would take their
    place.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in {0, 1, 2}.difference(keep):
        os.dup2(nothing, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in keep:
            # The listing's own file is among them, and is closed already.
            with contextlib.suppress(OSError):
                os.close(fd)


def descendants(pid: int) -> set[int]:
    """Return every process below ``pid``, even in another session or group."""
    children = _children if os.path.exists(f"/proc/self/task/{os.getpid()}/children") else _all_children().__getitem__
    found: set[int] = set()
    front = [pid]
    while front:
        for child in children(front.pop()):
            if child not in found:
                found.add(child)
                front.append(child)
    return found


def topmost_named(pids: Iterable[int], name: str) -> list[int]:
    """Return the processes that run a program of that name, without those below another one of them."""
    named = [pid for pid in pids if _name(pid) == name]
    below = set().union(*(descendants(pid) for pid in named))
    return [pid for pid in named if pid not in below]


def status_of_zombie(pid: int) -> int | None:
    """Return the exit status, as waitpid(2) gives it, of a process that nobody has waited for; None when unknown."""
    with contextlib.suppress(OSError):
        fields = _stat(pid)
        if fields is not None and fields[0] == "Z" and len(fields) > 49:
            return int(fields[49])
    return None


def children_of(pid: int) -> list[int]:
    """Return the live processes that a process has started, in the order in which they were started."""
    is_listed = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
    # While one of them ends, the kernel's list may lack another (proc(5)).
    children: set[int] = set()
    for _ in range(_LOOKS):
        before, children = children, {*children, *(_children(pid) if is_listed else _all_children()[pid])}
        if children == before:
            break
    found = []
    for child in children:
        with contextlib.suppress(OSError):
            start = start_ticks(child)
            if start is not None:
                found.append((start, child))
    return [child for _, child in sorted(found)]


def parent_of(pid: int) -> int | None:
    """Return the parent of a process; None when it cannot be looked at."""
    with contextlib.suppress(OSError):
        fields = _stat(pid)
        return None if fields is None else int(fields[1])
    return None


def variable_of(pid: int, name: str) -> str | None:
    """Return an environment variable with which a process was started; None when it has none or cannot be looked at."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        for entry in file.read().split(b"\0"):
            key, _, value = entry.partition(b"=")
            if os.fsdecode(key) == name:
                return os.fsdecode(value)
    return None


def await_halt(pid: int, timeout_s: float) -> None:
    """Wait until a process has noticed a STOP, or has ended."""
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline:
            fields = _stat(pid)
            if fields is None or fields[0] in ("T", "t", "Z", "X"):
                return
            time.sleep(0.001)


def words_of(pid: int) -> list[str]:
    """Return the command line of a process; an empty one when there is no such process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return []


def program_of(pid: int) -> str:
    """Return the name of the program that a process runs; an empty text when it cannot be looked at."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).replace(" (deleted)", "")
    except OSError:
        return ""


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                children += [int(word) for word in file.read().split()]
    except OSError:
        # The process has just ended.
        pass
    return children


def _all_children() -> dict[int, list[int]]:
    """Return the children of every process, for kernels that were built without CONFIG_PROC_CHILDREN."""
    children: dict[int, list[int]] = collections.defaultdict(list)
    for pid in all_pids():
        with contextlib.suppress(OSError):
            fields = _stat(pid)
            if fields is not None:
                children[int(fields[1])].append(pid)
    return children


def all_pids() -> list[int]:
    """Return the ids of all processes of this host."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def residents(pids: Iterable[int]) -> dict[int, int]:
    """Return the resident size of each process, in bytes."""
    return {pid: _resident(pid) for pid in pids}


def memory_bytes(sizes: Mapping[int, int], above: int) -> int:
    """
    Return the memory that processes use together.

    The sum of resident sizes is quick, but counts shared pages once per process. If that sum is above ``above``, the
    proportional sizes decide, in which a page shared by four processes counts as a quarter for each.

    :param sizes: their :func:`residents`.
    """
    resident = sum(sizes.values())
    if resident <= above or len(sizes) == 1:
        return resident
    return sum(_proportional(pid) for pid in sizes)


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return _resident(pid)


def with_environment(entry: str) -> list[int]:
    """
    Return this user's processes that were started with ``entry`` (``NAME=value``) in their environment.

    :raises OSError: processes of this user cannot be looked at now.
    """
    wanted = os.fsencode(entry)
    found = []
    for pid in all_pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # It has just ended, or is another user's.
            continue
    return found


def send_signal(pids: Iterable[int], number: int) -> None:
    """Send a signal to each process; skip those that have just ended."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def kill_with_environment(entry: str, timeout_s: float) -> bool:
    """Kill all processes that :func:`with_environment` finds, and their new children; return whether none is left."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = [pid for pid in with_environment(entry) if pid != os.getpid() and not has_ended(pid)]
        if not left:
            return True
        if time.monotonic() > deadline:
            return False
        send_signal(left, signal.SIGKILL)
        time.sleep(0.02)
