"""What counts more: the facts, and the word closest to the cause."""

from __future__ import annotations

import signal

import pytest

from airflow_provider_gpu_cluster.gpu_run.protocol.masks import hidden, masks_of
from airflow_provider_gpu_cluster.gpu_run.verdict.judge import Evidence, judge

OOM = (
    'Traceback (most recent call last):\n  File "train.py", line 41, in <module>\n    loss.backward()\n'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.\n"
)
SAVE = (
    'Traceback (most recent call last):\n  File "train.py", line 9, in <module>\n    torch.save(model, path)\n'
    "RuntimeError: bad stream\n"
)


def test_the_kernels_kills_beat_every_word() -> None:
    main = judge(Evidence(137, None, OOM, main_killed=True))
    assert (main.reason, main.kind, main.message) == (
        "out_of_memory",
        "out_of_memory",
        "the kernel killed it for lack of memory",
    )
    worker = judge(Evidence(1, None, OOM, worker_killed=True))
    assert worker.message == "the kernel killed one of its worker processes for lack of memory (exit code 1)"
    assert worker.kind == "out_of_memory"


@pytest.mark.parametrize(("exit_code", "number"), [(137, None), (None, 9)])
def test_a_kill_that_the_kernel_did_not_count(exit_code: int | None, number: int | None) -> None:
    found = judge(Evidence(exit_code, number, "epoch 1\n"))
    assert (found.reason, found.kind) == ("user_error", "interrupted")
    assert found.message == (
        "it was killed by SIGKILL from outside; the kernel counted no kill for lack of memory (signal SIGKILL)"
    )


def test_exit_codes_that_only_look_like_signals() -> None:
    assert judge(Evidence(255, None, "")).message == "it ended with exit code 255"
    assert judge(Evidence(128, None, "")).message == "it ended with exit code 128"
    assert judge(Evidence(None, signal.SIGRTMIN + 3, "")).message.startswith("it ended with signal ")


def test_a_full_disk_explains_what_could_not_be_written_and_nothing_else() -> None:
    full = judge(Evidence(1, None, SAVE, full=("/scratch",)))
    assert (full.reason, full.kind) == ("disk_full", "disk_full")
    assert full.message == "it ran out of disk space in /scratch: RuntimeError: bad stream (train.py:9)"
    assert judge(Evidence(1, None, SAVE)).kind == "user_error"
    assert judge(Evidence(1, None, SAVE, full=("/home",), is_over_quota=True)).kind == "quota"
    other = SAVE.replace("RuntimeError: bad stream", "KeyError: 'write'")
    assert judge(Evidence(1, None, other, full=("/scratch",))).kind == "user_error"
    assert judge(Evidence(3, None, "accuracy 0.3 is below the gate\n", full=("/scratch",))).kind == "user_error"
    bus = judge(Evidence(135, None, "Bus error\n", full=("/dev/shm",)))
    assert (bus.kind, bus.reason) == ("shared_memory_full", "user_error")


def test_a_damaged_gpu_is_the_nodes_failure_and_a_wrong_index_is_not() -> None:
    text = OOM.replace("torch.OutOfMemoryError: CUDA out of memory.", "RuntimeError: CUDA error: {}")
    for words, reason in (
        ("uncorrectable ECC error encountered", "node_failure"),
        ("misaligned address", "user_error"),
    ):
        found = judge(Evidence(1, None, text.format(words)))
        assert (found.kind, found.reason) == ("gpu_fault", reason)


def test_an_exception_that_the_program_survived_is_not_the_cause() -> None:
    went_on = f"{OOM}trying a batch of 32\nepoch 1 loss 0.7\nvalidation accuracy 0.31 below the gate 0.90\n"
    assert judge(Evidence(1, None, went_on)).message == (
        "it ended with exit code 1: validation accuracy 0.31 below the gate 0.90"
    )
    # What it prints to stderr may arrive after what it has printed to stdout later.
    late = "validation accuracy 0.31 below the gate 0.90\n" + OOM
    assert judge(Evidence(3, None, late, errors=OOM)).kind == "user_error"
    assert judge(Evidence(1, None, OOM + "closing the loaders\ndone with clean-up\n")).kind == "gpu_out_of_memory"


def test_stdout_in_the_middle_of_a_traceback() -> None:
    lines = OOM.splitlines(keepends=True)
    mixed = "".join([lines[0], "\n", "epoch 3\n", "\n", *lines[1:]])
    assert judge(Evidence(1, None, mixed, errors=OOM)).kind == "gpu_out_of_memory"


def test_an_exception_in_a_script_that_went_on_to_a_missing_command() -> None:
    found = judge(Evidence(127, None, OOM + "/jobs/x/run.sh: line 4: module: command not found\n"))
    assert found.kind == "command_not_found"
    assert "module.sh" not in found.message
    assert "modules.sh" in found.remedy


def test_the_place_is_the_last_one_in_the_jobs_code() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/jobs/x/code/src/main.py", line 7, in <module>\n    fit()\n'
        '  File "/jobs/x/code/src/model.py", line 12, in fit\n    lib.run()\n'
        '  File "/opt/tools/run.py", line 3, in run\n    helper()\n'
        '  File "/venv/lib/python3.11/site-packages/torch/nn.py", line 99, in helper\n    raise\n'
        "ValueError: no\n"
    )
    assert judge(Evidence(1, None, text, code="/jobs/x/code")).message == "ValueError: no (src/model.py:12)"
    assert judge(Evidence(1, None, text)).message == "ValueError: no (run.py:3)"


def test_secrets_are_hidden_before_a_message_is_cut() -> None:
    secret = "s3cret-" + "x" * 400
    masks = masks_of([secret])
    text = OOM.replace("CUDA out of memory. Tried to allocate 20.00 GiB.", f"CUDA out of memory. {secret} {'y' * 400}")
    for found in (
        judge(Evidence(1, None, text, hide=lambda said: hidden(said, masks))),
        judge(Evidence(3, None, f"wrong key {secret}\n", hide=lambda said: hidden(said, masks))),
    ):
        assert "s3cret" not in found.message
        assert "***" in found.message
        assert len(found.message) < 400


def test_a_few_words_more() -> None:
    for words, kind in (
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB", "gpu_out_of_memory"),
        ("OSError: [Errno 28] No space left on device: 'model.pth'", "disk_full"),
        ("OSError: [Errno 122] Disk quota exceeded", "quota"),
        ("Traceback (most recent call last):\nMemoryError", "out_of_memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "out_of_memory"),
        ("ValueError: shapes do not match", "user_error"),
        ("", "user_error"),
    ):
        assert judge(Evidence(1, None, words + "\n")).kind == kind, words
