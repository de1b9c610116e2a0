"""The checks of a ledger find what must not be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.ledger import TRAINING, Entry, Ledger


def ledger(*entries: str) -> Ledger:
    """Return a ledger of entries such as ``1 step 3``."""
    words = [entry.split() for entry in entries]
    return Ledger([Entry(float(at), int(a), int(a), what, int(n)) for at, (a, what, n) in enumerate(words)])


GOOD = ("1 begins 0", "1 step 1", "1 step 2", "1 step 3", "2 begins 2", "2 step 3", "2 step 4", "2 done 4")


def test_work_that_goes_on_is_without_fault() -> None:
    good = ledger(*GOOD)
    assert good.faults(save_every=2) == []
    assert (good.attempts, good.steps_run, good.steps_repeated) == ([1, 2], 5, 1)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({7: "2 step 5"}, "the work is not done"),
        ({4: "2 begins 0", 5: "2 step 1", 6: "2 step 2"}, "attempt 2 repeats 3 steps"),
        ({4: "2 begins 4", 5: "2 step 5", 6: "2 step 6"}, "attempt 2 began after step 4, but only 3 were done"),
        ({6: "2 step 5"}, "attempt 2 went from step 3 to step 5"),
        ({6: "2 overlaps 0"}, "attempt 2 began while another one was alive"),
        ({4: "1 begins 2"}, "attempt 1 ran twice"),
        ({6: "1 step 4"}, "attempt 1 worked after attempt 2 had begun"),
    ],
)
def test_each_fault_is_found(changes: dict[int, str], fault: str) -> None:
    entries = [changes.get(place, entry) for place, entry in enumerate(GOOD)]
    assert any(found.startswith(fault) for found in ledger(*entries).faults(save_every=2))


def start(folder: Path, attempt: int, **environ: Any) -> subprocess.Popen[bytes]:
    """Start the program as one attempt of a job."""
    (folder / "checkpoints").mkdir(exist_ok=True)
    values = {"LEDGER": folder / "ledger", "CHECKPOINT_DIR": folder / "checkpoints", "ATTEMPT": attempt, **environ}
    command = [sys.executable, str(TRAINING)]
    return subprocess.Popen(command, env={**os.environ, **{name: str(value) for name, value in values.items()}})


def test_the_program_saves_when_told_to_end_and_goes_on_from_there(tmp_path: Path, eventually: Any) -> None:
    settings = {"STEPS": 30, "STEP_S": 0.01, "SAVE_EVERY": 1000}
    first = start(tmp_path, 1, **settings)
    eventually(lambda: Ledger.read(tmp_path / "ledger").steps_run >= 3)
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 143
    assert start(tmp_path, 2, **settings).wait() == 0
    found = Ledger.read(tmp_path / "ledger")
    assert found.faults(save_every=0) == []
    assert (found.attempts, found.steps_run) == ([1, 2], 30)


def test_the_program_notes_that_another_one_is_alive(tmp_path: Path, eventually: Any) -> None:
    settings = {"STEP_S": 0.02, "SAVE_EVERY": 1000}
    processes = [start(tmp_path, 1, **settings)]
    eventually(lambda: Ledger.read(tmp_path / "ledger").attempts)
    processes.append(start(tmp_path, 2, **settings))
    eventually(lambda: Ledger.read(tmp_path / "ledger").attempts == [1, 2])
    (tmp_path / "ledger.enough").touch()
    assert [process.wait() for process in processes] == [0, 0]
    assert "attempt 2 began while another one was alive" in Ledger.read(tmp_path / "ledger").double_launches()
