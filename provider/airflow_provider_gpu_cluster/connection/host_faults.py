"""Recognizes in what a shell or an interpreter says that a host lacks something just now."""

from __future__ import annotations

# For each sign, in the C locale or by an interpreter, what it means.
_FAULTS = (
    (
        ("fork: retry", "fork: Resource temporarily unavailable", "Cannot fork", "can't start new thread"),
        "the user may have no more processes there now (ulimit -u), or the host has none left",
    ),
    (
        ("BlockingIOError: [Errno 11]", "Resource temporarily unavailable"),
        "the host has no room for another process or thread now (ulimit -u, pids limit of the login)",
    ),
    (
        ("Cannot allocate memory", "MemoryError", "cannot allocate memory"),
        "the host, or the login's limit (ulimit -v, cgroup), has no memory left for it",
    ),
    (("Too many open files",), "too many files are open there (ulimit -n)"),
    (
        ("Stale file handle", "Transport endpoint is not connected", "Input/output error"),
        "a file system there does not work now",
    ),
)


_FULL = ("No space left on device", "Disk quota exceeded")


def says_disk_is_full(said: str) -> bool:
    """Return whether a shell, or what it runs, says that there is no room on the disk."""
    return any(sign in said for sign in _FULL)


def fault_of_host(said: str) -> str | None:
    """Return what a host lacks, in words; None if nothing says so."""
    for signs, words in _FAULTS:
        if any(sign in said for sign in signs):
            return words
    return None
