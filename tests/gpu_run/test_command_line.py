"""The table of verbs: each names work that is there, and that takes what the verb says it needs."""

from __future__ import annotations

import errno
import gc
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.gpu_run import command_line, protocol
from airflow_provider_gpu_cluster.gpu_run.command_line import VERBS, Verb
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root

TYPES = {
    "root": "Root",
    "engine": "Engine",
    "program": "str",
    "umask": "int",
    "stream": "BinaryIO",
    "verbs": "Verbs",
}
CLI = {
    "gc, by a person": command_line._CLI_GC,
    "a script": command_line._CLI_RUN,
    **{f"{name}, by a person": verb for name, verb in command_line._CLI_LOOKS.items()},
}


def test_the_airflow_side_asks_for_the_verbs_of_the_protocol() -> None:
    assert {name for name, verb in VERBS.items() if verb.is_asked} == set(protocol.VERBS)


def test_the_program_looks_for_garbage_from_its_work_on() -> None:
    gc.disable()
    try:
        VERBS["status"].work()
        assert gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("verb", [pytest.param(verb, id=name) for name, verb in {**VERBS, **CLI}.items()])
def test_a_verb_names_work_that_takes_what_it_needs(verb: Verb) -> None:
    work = inspect.signature(verb.work())
    assert work.return_annotation == ("Reply" if verb.is_asked else "int")
    words = [one for one in work.parameters.values() if one.name not in verb.needs]
    if verb.is_asked:
        assert words == []
    assert {one.annotation for one in words} <= {"str"}
    assert {one.name for one in work.parameters.values()} >= set(verb.needs)
    for need in verb.needs:
        # Of a request, each verb knows its own form.
        assert need == "request" or work.parameters[need].annotation == TYPES[need]


@pytest.mark.parametrize(
    ("error", "writes", "looks"),
    [
        (OSError(errno.ENOSPC, "full", "/tmp/y"), protocol.NO_SPACE, protocol.PASSING_FAULT),
        (OSError(errno.EDQUOT, "full"), protocol.NO_SPACE, protocol.PASSING_FAULT),
        (OSError(errno.EACCES, "no", "/tmp/y"), protocol.ROOT_NOT_WRITABLE, protocol.PASSING_FAULT),
        (OSError(errno.EROFS, "no", "/tmp/y"), protocol.ROOT_NOT_WRITABLE, protocol.PASSING_FAULT),
        (OSError(errno.EIO, "broken", "/tmp/y"), protocol.PASSING_FAULT, protocol.PASSING_FAULT),
        (OSError(errno.ESTALE, "stale"), protocol.PASSING_FAULT, protocol.PASSING_FAULT),
        (OSError(errno.EMFILE, "many", "/tmp/y"), protocol.PASSING_FAULT, protocol.PASSING_FAULT),
        (OSError(errno.EAGAIN, "fork"), protocol.PASSING_FAULT, protocol.PASSING_FAULT),
        (MemoryError(), protocol.PASSING_FAULT, protocol.PASSING_FAULT),
        (Refused(protocol.JOB_CONFLICT, "taken"), protocol.JOB_CONFLICT, protocol.JOB_CONFLICT),
        (ValueError("odd"), protocol.INTERNAL, protocol.INTERNAL),
    ],
    ids=repr,
)
def test_what_a_failure_is_called(error: Exception, writes: str, looks: str) -> None:
    """A job that is looked at may run on while a disk is full, so nothing about disks is final there."""
    for name in ("submit", "stage", "send", *protocol.LOOKS):
        expected = looks if name in protocol.LOOKS else writes
        fault = command_line._fault(name, error, Root("/tmp"))
        assert fault["code"] == expected
        assert ("Traceback" in fault["message"] or "odd" in fault["message"]) is (expected == protocol.INTERNAL)
        if isinstance(error, OSError):
            assert "/tmp" in fault["message"]


@pytest.mark.parametrize(("name", "status", "said"), [("usage", 0, "no job has ended"), ("audit", 2, "job_id")])
def test_a_person_needs_no_terminal_and_no_arguments(name: str, status: int, said: str, tmp_path: Path) -> None:
    program = str(tmp_path / ".gpu-run" / "program.pyz")
    call = f"import sys; from {command_line.__name__} import main; sys.exit(main({program!r}, [{name!r}]))"
    done = subprocess.run([sys.executable, "-c", call], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
