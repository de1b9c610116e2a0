"""
A job that works in steps, saves what it has done, goes on from there, and notes all of it in a ledger.

It stands alone, as a user's code does. Its environment says what it does, besides what every job finds there:

- ``LEDGER``: file outside the job's directory to which each step of each attempt is appended, under a lock.
- ``STEPS``, ``STEP_S``: how many steps it takes, and how long each of them lasts. It also ends as soon as there is a
  file named like the ledger, with ``.enough`` after it.
- ``SAVE_EVERY``: after how many steps it saves. It saves as well when it is warned or told to end.
- ``FAIL_AT``: the step that fails whenever it is tried; none by default.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

LEDGER = os.environ["LEDGER"]
ATTEMPT = int(os.environ["ATTEMPT"])
CHECKPOINTS = os.environ["CHECKPOINT_DIR"]
STEPS = int(os.environ.get("STEPS", "1000000"))
STEP_S = float(os.environ["STEP_S"])
SAVE_EVERY = int(os.environ["SAVE_EVERY"])
FAIL_AT = int(os.environ.get("FAIL_AT", "0"))

asked: set[int] = set()


def note(what: str, step: int) -> None:
    """Append an entry to the ledger."""
    with open(LEDGER, "a") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        ledger.write(f"{time.time():.6f} {ATTEMPT} {os.getpid()} {what} {step}\n")


def saved_steps() -> list[int]:
    """Return the steps after which something was saved."""
    return [int(name[5:-3]) for name in os.listdir(CHECKPOINTS) if name.startswith("step_") and name.endswith(".pt")]


def save(step: int) -> None:
    """Write a checkpoint whole or not at all, and remove those before it."""
    path = os.path.join(CHECKPOINTS, f"step_{step}.pt")
    with open(path + ".partial", "w") as file:
        file.write(str(step))
    os.rename(path + ".partial", path)
    for earlier in saved_steps():
        if earlier < step:
            os.unlink(os.path.join(CHECKPOINTS, f"step_{earlier}.pt"))


def hold_alive() -> None:
    """Take a lock that ends with this process; if another process of this job has it, note so."""
    alive = os.open(LEDGER + ".alive", os.O_WRONLY | os.O_CREAT)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("overlaps", 0)


def main() -> None:
    """Work until all steps are done, or until told to end."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: asked.add(number))
    hold_alive()
    step = max(saved_steps(), default=0)
    note("begins", step)
    while step < STEPS and not os.path.exists(LEDGER + ".enough"):
        time.sleep(STEP_S)
        step += 1
        if step == FAIL_AT:
            note("fails", step)
            raise ValueError("labels must be between 0 and 9, got 12")
        note("step", step)
        print("step", step, flush=True)
        if asked or step % SAVE_EVERY == 0:
            save(step)
        if signal.SIGTERM in asked:
            note("stops", step)
            sys.exit(143)
        asked.clear()
    note("done", step)


main()
