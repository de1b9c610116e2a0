"""What is known of clusters, in the words of Prometheus."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from airflow_provider_gpu_cluster.plugins.cluster_looks import ClusterLook
from airflow_provider_gpu_cluster.plugins.metric_families import ClusterCollector

PAIR = {"running_s": 50.5, "gpu_seconds": 101.0, "used_gpu_seconds": 60.0, "idle_gpu_seconds": 1.0, "energy_j": 5e3}
DURATIONS = {"bounds_s": [1.0, 10.0], "counts": [1, 2, 3], "sum_s": 500.0}
LEDGER: Any = {
    "is_complete": True,
    "pairs": [
        {
            **PAIR,
            "dag_id": 'night"ly\\\n',
            "user": "ada",
            "ends": [{"reason": "success", "count": 3}, {"reason": "idle", "count": 1}],
        }
    ],
    "job_durations": DURATIONS,
    "queue_durations": DURATIONS,
    "transfers": [{"direction": "in", "bytes": 1 << 40, "durations": DURATIONS}],
    "final_numbers": [{"dag_id": "d", "task_id": "t", "numbers": [{"name": "val_loss", "value": 0.25}]}],
}
GPUS: Any = [
    {"type": "A100", "free": False, "state": "leased"},
    {"type": "A100", "free": False, "state": "leased"},
    {"type": "A100", "free": True, "state": "free"},
    {"type": "V100", "free": False},
]
NOW: Any = {
    "ledger": LEDGER,
    "calls": [{"verb": "watch", "count": 2}],
    "waiting_jobs": 4,
    "running_jobs": 5,
    "capacity": {"gpus": GPUS, "waiting_jobs": 6, "waiting_gpus": 7, "broken_gpus": [{"gpu": "7", "why": "it"}]},
}
GOOD = ClusterLook("lab", is_up=True, answer=NOW, answered_at=time.monotonic(), took_s=0.5)


def text_of(*looks: ClusterLook, encode: Any = generate_latest) -> str:
    registry = CollectorRegistry()
    registry.register(ClusterCollector(looks))
    return bytes(encode(registry)).decode()


def samples(*looks: ClusterLook) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse(text_of(*looks)):
        for sample in family.samples:
            labels = tuple(value for name, value in sorted(sample.labels.items()) if name != "cluster")
            found.setdefault(sample.name.removeprefix("gpu_cluster_"), {})[labels] = sample.value
    return found


def test_a_cluster_is_told_in_full() -> None:
    found = samples(GOOD)
    dag = 'night"ly\\\n'
    assert found["up"] == {(): 1}
    assert found["look_duration_seconds"] == {(): 0.5}
    assert found["jobs_total"] == {(dag, "success", "ada"): 3, (dag, "idle", "ada"): 1}
    for name, value in (
        ("run_seconds_total", 50.5),
        ("gpu_seconds_total", 101),
        ("used_gpu_seconds_total", 60),
        ("idle_gpu_seconds_total", 1),
        ("energy_joules_total", 5000),
    ):
        assert found[name] == {(dag, "ada"): value}
    assert found["gpus"] == {("leased", "A100"): 2, ("free", "A100"): 1, ("other", "V100"): 1, ("broken", ""): 1}
    assert (found["waiting_jobs"], found["waiting_gpus"]) == ({(): 6}, {(): 7})
    assert found["active_jobs"] == {("waiting",): 4, ("running",): 5}
    assert found["open_connections"] == {("watch",): 2}
    assert found["final_metric"] == {("d", "val_loss", "t"): 0.25}
    assert found["transfer_bytes_total"] == {("in",): 1 << 40}
    assert found["job_duration_seconds_bucket"] == {("1.0",): 1, ("10.0",): 3, ("+Inf",): 6}
    assert found["queue_duration_seconds_sum"] == {(): 500}
    assert found["transfer_duration_seconds_count"] == {("in",): 6}


def test_of_a_cluster_out_of_reach_nothing_old_is_told() -> None:
    found = samples(ClusterLook("gone", is_up=False, answered_at=time.monotonic() - 100, took_s=20))
    assert 100 <= found.pop("answer_age_seconds")[()] < 200
    assert found == {"up": {(): 0}, "look_duration_seconds": {(): 20}}


def test_of_a_cluster_that_was_never_reached_nothing_is_made_up() -> None:
    assert samples(ClusterLook("never")) == {"up": {(): 0}}


@pytest.mark.parametrize("ledger", [None, {**LEDGER, "is_complete": False}])
def test_what_a_cluster_does_not_tell_is_left_out(ledger: Any) -> None:
    answer: Any = {"calls": [], "capacity_fault": "squeue is silent", **({"ledger": ledger} if ledger else {})}
    assert set(samples(ClusterLook("lab", is_up=True, answer=answer))) == {"up"}


def test_a_histogram_that_makes_no_sense_is_left_out() -> None:
    crooked = {"bounds_s": [1.0], "counts": [1], "sum_s": 1.0}
    answer: Any = {**NOW, "ledger": {**LEDGER, "job_durations": crooked}}
    found = samples(ClusterLook("lab", is_up=True, answer=answer))
    assert "job_duration_seconds_sum" not in found
    assert "queue_duration_seconds_sum" in found


def test_openmetrics_is_well_formed() -> None:
    text = text_of(GOOD, ClusterLook("gone"), encode=generate_openmetrics)
    families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert families["gpu_cluster_jobs"].type == "counter"
    assert families["gpu_cluster_job_duration_seconds"].type == "histogram"
