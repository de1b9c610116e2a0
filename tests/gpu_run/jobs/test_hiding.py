"""What is shown of a job's files has none of its secrets, wherever a window of them begins and ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import hiding
from airflow_provider_gpu_cluster.gpu_run.protocol.masks import hidden, joined, masks_of
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory

SECRET = "hf_0123456789abcdef"
TOKEN = "tøken-\U0001f511"
LOG = f"a {SECRET} ø\xff {TOKEN}{SECRET}\0 {SECRET[:-1]}\n".encode("latin-1", "ignore") + (
    f"{TOKEN} ø {SECRET}\n".encode() + b"\xff\x80\xc3" + TOKEN.encode()
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "log"
    path.write_bytes(LOG)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_windows_of_all_sizes_have_nothing_of_a_secret(log: int) -> None:
    masks = joined([masks for masks in (masks_of([SECRET]), masks_of([TOKEN])) if masks])
    clean = LOG.replace(SECRET.encode(), b"***").replace(TOKEN.encode(), b"***").replace(b"******", b"***")
    assert hiding.hidden_window(log, 0, len(LOG), masks) == clean
    secret_bytes = {
        place
        for secret in (SECRET.encode(), TOKEN.encode())
        for start in range(len(LOG))
        if LOG.startswith(secret, start)
        for place in range(start, start + len(secret))
    }
    for size in (1, 3, 7, 30):
        for start in range(len(LOG) + 2):
            found = hiding.window(log, start, start + size, masks)
            assert found.data == LOG[start : start + size]
            places = {start + place for begin, end in found.secrets for place in range(begin, end)}
            assert places == secret_bytes & set(range(start, start + size))
    assert hiding.hidden_window(log, 2, 9, None) == LOG[2:9]


def attempt(job: JobDirectory, number: int, **request: Any) -> None:
    job.create()
    assert job.add_attempt(number, {"spec": {}, **request}, {})  # type: ignore[typeddict-item]


def test_secrets_of_all_attempts_are_known_and_records_in_between_are_not_read(tmp_path: Path) -> None:
    job = JobDirectory(str(tmp_path / "job"), "job")
    assert hiding.masks_of(job) is None
    attempt(job, 1, masks=masks_of(["first-secret"]))
    second = masks_of(["second-secret"])
    attempt(job, 2, masks=second)
    for number in range(3, 9):
        attempt(job, number, masks=second, recovery={"first": 2})
    attempt(job, 9, masks=masks_of(["third-secret"]))
    Path(job.attempt(5).at("request.json")).write_text("spoilt")
    text = "first-secret second-secret third-secret another"
    assert hidden(text, hiding.masks_of(job)) == "*** *** *** another"


@pytest.mark.parametrize(
    "spoilt",
    ["", "no JSON", "[]", '{"masks": {}}', '{"masks": 7}', '{"recovery": 7}', '{"recovery": {"first": "x"}}', None],
)
def test_nothing_is_shown_of_a_job_whose_secrets_are_unknown(tmp_path: Path, spoilt: str | None) -> None:
    job = JobDirectory(str(tmp_path / "job"), "job")
    attempt(job, 1, masks=masks_of([SECRET]))
    record = Path(job.attempt(1).at("request.json"))
    record.unlink() if spoilt is None else record.write_text(spoilt)
    with pytest.raises(Refused) as caught:
        hiding.masks_of(job)
    assert str(tmp_path / "job") in caught.value.message


def test_a_window_with_many_secrets_takes_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = "2026-11-28 14:00:{:02} INFO trainer.py:312 epoch 17: loss {:.6f} saved=/home/u/outputs/step-{}.pt\n"
    path.write_text("".join(line.format(step % 60, 1 / (step + 1), step) for step in range(4000)))
    secrets = [f"{first}f_{number:036}" for number, first in enumerate("hwabcdefglmnoprstu-/")]
    fd = os.open(path, os.O_RDONLY)
    masks = masks_of(secrets)
    began = time.process_time()
    assert hiding.window(fd, 1000, 1000 + (1 << 18), masks).secrets == []
    took_s = time.process_time() - began
    os.close(fd)
    assert took_s < 0.2
