"""Long work that says nothing else says that it goes on."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_gpu_cluster.transfer import still_at_work
from airflow_provider_gpu_cluster.transfer.still_at_work import StillAtWork


def test_long_work_is_told_and_short_work_is_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with StillAtWork("putting 20,000 files in place"):
        pass
    assert caplog.messages == []
    told = threading.Event()
    monkeypatch.setattr(still_at_work, "TELL_EVERY_S", 0.01)

    def duration_text(seconds: float) -> str:
        told.set()
        return "2 min"

    monkeypatch.setattr(still_at_work, "duration_text", duration_text)
    with StillAtWork("putting 20,000 files in place"):
        assert told.wait(30)
    assert caplog.messages[0] == "putting 20,000 files in place, for 2 min now"
