"""Work that is killed at each of its steps on the disk, one after the other."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator

# What changes something on the disk, or takes a lock on it.
_STEPS = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate", "os.utime", "fcntl.flock")


def killed_at_each_step(work: Callable[[], object], prepare: Callable[[], object], every: int = 1) -> Iterator[int]:
    """
    Do some work in a process that is killed before one of its first steps; yield; likewise before a later one, and so
    on, until it gets to its end.

    :param prepare: what is to be done before each time.
    :param every: how many steps there are from one time to the next; the first one is picked at random among them.
    """
    step = random.randrange(every)
    while True:
        prepare()
        with warnings.catch_warnings():
            # pytest-xdist has threads; the child uses nothing of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _do(work, step)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or status == 0, "the work failed"
        yield step
        if status == 0:
            return
        step += every


def _do(work: Callable[[], object], step: int) -> None:
    left = step

    def note(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _STEPS or is_write:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(note)
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
