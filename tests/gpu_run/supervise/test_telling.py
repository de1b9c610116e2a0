"""Who is told to end, in which order, and what does not happen meanwhile, with real shells of many shapes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness.patience import PATIENCE_S

RUN = '"$PYTHON" -S -E program.py'
SAVED = ["a told", "a saved"]
ALONE = ["a worker left alone"] * 2


class Shape(NamedTuple):
    """
    A job.

    :param command: its shell text; RUN stands for a program that saves when it is told to end.
    :param notes: what its programs note, in this order.
    :param code: the exit code that is recorded.
    :param ready: the programs that are waited for.
    :param number: the signal.
    """

    command: str
    notes: list[str]
    code: int = 7
    ready: str = "a"
    number: int = signal.SIGTERM


SHAPES = {
    "one line": Shape("RUN a", SAVED),
    "exec": Shape("exec RUN a", SAVED),
    "workers": Shape("RUN a 2", [*SAVED, *ALONE]),
    "the next line": Shape("RUN a; RUN b\nRUN c", SAVED),
    "or true": Shape("RUN a || true\nRUN b", SAVED),
    "set +e": Shape("set +e\nRUN a\nRUN b", SAVED),
    "if": Shape("if ! RUN a; then RUN b; fi", SAVED),
    "a loop": Shape('for name in a b; do RUN "$name"; done', SAVED),
    "until": Shape("until RUN a; do :; done", SAVED),
    "a pipeline": Shape("RUN a | tee copy; RUN b", SAVED),
    "the end of a pipeline": Shape("sleep 60 | RUN a 2>&1 | tee copy; RUN b", [*SAVED]),
    "another place for output": Shape("RUN a > >(tee copy) 2>&1; RUN b", SAVED),
    "a text": Shape('text="$(RUN a)"; RUN b', SAVED),
    "a function": Shape("train() { RUN a; RUN b; }; train; RUN c", SAVED),
    "a subshell": Shape("(cd .; RUN a; RUN b); RUN c", SAVED),
    "another script": Shape("printf 'RUN a\\nRUN b\\n' > x.sh; bash x.sh; RUN c", SAVED),
    "a script of its own": Shape("printf '#!/bin/sh\\nRUN a\\nRUN b\\n' > x; chmod +x x; ./x; RUN c", SAVED),
    "two beside each other": Shape("RUN a & RUN b & wait; RUN c", ["a saved", "a told", "b saved", "b told"], 7, "a b"),
    "a monitor beside it": Shape("sleep 60 & RUN a; RUN b", SAVED),
    "a server beside it": Shape("RUN b & RUN a; RUN c", [*SAVED, "b told", "b saved"], 7, "a b"),
    "looked at": Shape("RUN a & while kill -0 $!; do sleep 0.02; done; RUN b", SAVED),
    "a loop beside it": Shape("while :; do sleep 0.02; done & RUN a; RUN b", SAVED),
    "job control": Shape("set -m; RUN a; RUN b", SAVED),
    "one by one": Shape("printf 'a\\nb\\n' | xargs -n 1 RUN; RUN c", SAVED),
    "nice and env": Shape("nice env X=1 setsid RUN a; RUN b", SAVED),
    "timeout": Shape("timeout 60 RUN a; RUN b", SAVED),
    "a launcher": Shape(f"{RUN.split()[0]} accelerate a; RUN b", SAVED),
    "a launcher of one's own": Shape('"$PYTHON" launch.py a; RUN b', SAVED),
    "make": Shape('printf "train:\\n\\t$PYTHON -S -E program.py a\\n\\tfalse\\n" > Makefile; make; RUN c', SAVED),
    "unshare": Shape("unshare --fork RUN a; RUN b", SAVED),
    "a trap, and a program to wait for": Shape(
        "trap 'echo trap >> notes; exit 4' TERM; RUN a; RUN b", [*SAVED, "trap"], 4
    ),
    "a trap, and one in the background": Shape(
        "trap 'echo trap >> notes; kill -USR1 $!; wait $! || exit 4' TERM; echo 'sh ready' >> notes; sleep 60 & wait",
        ["trap"],
        4,
        "sh",
    ),
    "a trap for the end": Shape("trap 'echo end >> notes' EXIT; RUN a; RUN b", [*SAVED, "end"]),
    "a trap for the end of two": Shape(
        "trap 'echo end >> notes; kill $(jobs -p)' EXIT; RUN a & RUN b & wait",
        ["a saved", "a told", "b saved", "b told", "end"],
        7,
        "a b",
    ),
    "a trap inside": Shape(
        "printf \"trap 'echo trap >> notes; exit 4' TERM\\nRUN a\\nRUN b\\n\" > x.sh; bash x.sh; RUN c",
        [*SAVED, "trap"],
        4,
    ),
    "a shell that is safe": Shape("trap '' TERM; RUN a; RUN b", SAVED),
    "nothing but a shell": Shape("echo 'sh ready' >> notes; while :; do :; done", [], -15, "sh"),
    "INT": Shape("RUN a; RUN b", SAVED, number=signal.SIGINT),
}
LAUNCHER = "import subprocess, sys\nsys.exit(subprocess.run([sys.executable, 'program.py', *sys.argv[1:]]).returncode)"


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run all of them at once, and return what became of each."""
    jobs: list[tuple[str, str, str, int]] = []
    for shape in SHAPES.values():
        folder = tmp_path_factory.mktemp("job")
        for launcher in ("accelerate", "launch.py"):
            (folder / launcher).write_text(LAUNCHER)
        jobs.append((str(folder), shape.command.replace("RUN", RUN), shape.ready, int(shape.number)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu_run.supervise.stopped_job"],
        input=json.dumps(jobs).encode(),
        capture_output=True,
        cwd=Path(__file__).parents[3],
        timeout=3 * PATIENCE_S,
    )
    assert not done.stderr, done.stderr.decode()
    return {name: json.loads(Path(job[0], "end.json").read_text()) for name, job in zip(SHAPES, jobs, strict=True)}


@pytest.mark.skipif(not shutil.which("bash"), reason="jobs are run by bash")
@pytest.mark.parametrize("name", SHAPES)
def test_the_program_ends_first_and_nothing_begins(ends: dict[str, Any], name: str) -> None:
    shape, end = SHAPES[name], ends[name]
    notes = end["notes"]
    # Those that are told at once note it in any order.
    assert (sorted(notes) if shape.notes == sorted(shape.notes) else notes) == shape.notes, end
    status = end["status"]
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    assert code == shape.code, end
    # A warning goes the same way, and ends nobody.
    assert any(program.startswith("python") for program in end["warned"]) is ("a saved" in notes)
    if "a saved" in notes and "$(" not in shape.command:
        assert "last words of a\n" in end["out"]
