"""metrics.json, as training code writes it."""

from __future__ import annotations

import json

import pytest

from airflow_provider_gpu_cluster.jobs.metrics import parse_metrics


def test_numbers_that_json_does_not_have_become_text() -> None:
    content = b'{"loss": NaN, "best": [Infinity, -Infinity], "lr": 1e999, "epoch": 3, "acc": 0.5}'
    metrics = parse_metrics(content)
    assert metrics == {"loss": "NaN", "best": ["Infinity", "-Infinity"], "lr": "Infinity", "epoch": 3, "acc": 0.5}
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xfd", b"[" * 100_000])
def test_what_is_no_json_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_metrics(content)
