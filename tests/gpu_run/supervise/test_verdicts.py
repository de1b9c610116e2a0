"""Why real jobs failed, as their supervisors tell it: by the host's facts, and by long and misleading output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.jobs import submission
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import masks_of
from tests.gpu_run.host import Host
from tests.gpu_run.verdict.corpus.cases import cases
from tests.harness.small_disk import small_disk

# It writes as torch.save does, and as little does it say of why that failed.
SAVES = """
import os, sys
def save(path):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        while True: os.write(fd, bytes(65536))
    except OSError:
        raise RuntimeError("unexpected state of the writer") from None
save({path!r})
"""


def python(host: Host, text: str, **more: Any) -> dict[str, Any]:
    """Return how a Python script ended as a job."""
    job = host.submit(f'exec {sys.executable} "$JOB_DIR/code/train.py"', code={"train.py": text}, **more)
    return host.wait(job)


def test_a_full_disk_that_no_word_names(host: Host, tmp_path: Path) -> None:
    with small_disk(tmp_path / "scratch", 512) as disk:
        status = python(host, SAVES.format(path=f"{disk}/model.pt"))
    assert (status["reason"], status["kind"]) == ("disk_full", "disk_full")
    assert status["message"] == (
        f"it ran out of disk space in {disk}: RuntimeError: unexpected state of the writer (train.py:8)"
    )
    assert "Delete old files" in status["remedy"]


def test_a_long_clean_up_after_the_cause(host: Host) -> None:
    text = (
        "import sys, atexit\n"
        "def clean():\n    for i in range(150000): sys.stderr.write(f'clean-up of buffer {i} of this loader\\n')\n"
        "atexit.register(clean)\n"
        "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')\n"
    )
    status = python(host, text)
    assert status["reason"] == status["kind"] == "gpu_out_of_memory"
    assert status["message"] == (
        "it ran out of GPU memory: RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB (train.py:5)"
    )


def test_shells_and_signals(host: Host) -> None:
    ends = {
        "module load cuda/12": (127, "command_not_found", "modules.sh"),
        'cd "$JOB_DIR"; printf "#!/bin/bash\\r\\n" > s.sh; chmod +x s.sh; ./s.sh': (127, "command_not_found", ""),
        'touch "$JOB_DIR/code/s.sh"; "$JOB_DIR/code/s.sh"': (126, "permission_denied", "chmod +x"),
        "cat data/none.csv": (1, "missing_file", "DATA_DIR"),
        f"{sys.executable} -c 'import os; os.abort()'": (134, "crash", "PYTHONFAULTHANDLER"),
        f"{sys.executable} -c 'import os; os.kill(os.getpid(), 9)'; exit $?": (137, "interrupted", "Find out"),
    }
    jobs = {host.submit(command, gpus=0): end for command, end in ends.items()}
    for job, (code, kind, remedy) in jobs.items():
        status = host.wait(job)
        number = status["signal"]
        assert (status["exit_code"] if number is None else 128 + number, status["kind"]) == (code, kind), status
        assert remedy in status["remedy"]


def test_outputs_that_a_job_prints(host: Host) -> None:
    chosen = [case for case in cases() if case.name in {"given_rank_failed", "torch2_oom_noise", "batch_size_search"}]
    assert len(chosen) == 3
    for case in chosen:
        text = f"import sys\nsys.stderr.write({case.output!r})\nsys.exit({case.exit})\n"
        assert python(host, text)["kind"] == case.kind, case.name


def test_a_secret_in_an_exception_is_in_no_record(host: Host) -> None:
    secret = "hunter2-" + "z" * 6000
    script = f"raise ValueError('key {secret} is not valid')"
    request: Any = host.request(f'exec {sys.executable} "$JOB_DIR/code/train.py"')
    request["masks"] = masks_of([secret])
    job = host.job(request["job_id"])
    job.create()
    Path(job.at("code", "train.py")).write_text(script)
    submission.submit(host.root, host.engine, request)
    status = host.wait(job.job_id)
    assert status["message"] == "ValueError: key *** is not valid (train.py:1)"
    assert "hunter2" not in Path(host.attempt(job.job_id).at("exit.json")).read_text()


def test_an_end_that_the_code_did_not_make_has_the_kind_of_its_reason(host: Host) -> None:
    status = host.run("sleep 60", time_limit_s=0.2)
    assert (status["reason"], status["kind"]) == ("time_limit", "time_limit")
    assert "time_limit=" in status["remedy"]
    status = host.run("exit 3", memory_bytes=1 << 30)
    assert (status["kind"], status["remedy"], status["memory_limit_bytes"]) == ("user_error", "", 1 << 30)
    assert host.run("true").get("kind") is None


def test_an_error_that_was_coped_with_however_late_it_is_printed(host: Host) -> None:
    text = (
        "import logging, sys\n"
        "try:\n    raise OSError(28, 'No space left on device')\n"
        "except OSError:\n    logging.exception('no room for the cache; going on without')\n"
        "print('accuracy 0.5 is below the gate of 0.9')\n"
        "sys.exit({})\n"
    )
    for code in (1, 3):
        status = python(host, text.format(code))
        assert status["message"] == f"it ended with exit code {code}: accuracy 0.5 is below the gate of 0.9"
