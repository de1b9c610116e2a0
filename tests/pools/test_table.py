"""What the task log tells of a choice."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_gpu_cluster.pools.choice import choose
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.table import size_text, table_of


def offer(name: str, **values: Any) -> Offer:
    return Offer(Member(name), **{"fits": True, "starts_in_s": 0.0, "missing_bytes": 0, **values})


def test_each_cluster_has_a_row_and_reasons_follow() -> None:
    offers = [
        offer("gpu01", free_gpus=0, gpus=4, starts_in_s=4980.0, missing_bytes=1_234_000_000, send_s=61.7),
        offer("gpu02", free_gpus=6, gpus=8, price_per_gpu_hour=1.5),
        offer(
            "slurm-a", gpus=64, starts_in_s=None, missing_bytes=None, price_per_gpu_hour=0.004, remark="queue is paused"
        ),
        offer(
            "old", fits=False, why_not="it needs 2 GPUs, and this host has 1", free_gpus=0, gpus=1, price_per_gpu_hour=0
        ),
        offer("full", fits=False, why_not="its disk is full", is_passing=True),
        offer("far", fits=False, answered=False, why_not="it has not answered within 4 s"),
        offer("new", starts_in_s=400_000.0, missing_bytes=999, is_environment_built=False),
    ]
    assert table_of(choose(offers)) == EXPECTED


EXPECTED = """\
cluster  fits       free GPUs  expected start       to be sent         price    chosen
gpu01    yes        0 of 4     in 1 h 23 min        1.2 GB, 1 min 2 s
gpu02    yes        6 of 8     now                  nothing            1.50/h   yes
slurm-a  yes        ? of 64    unknown (in 1 min?)  ?                  0.004/h
old      no         0 of 1                                             0.00/h
full     not now    ?
far      no answer
new      yes        ?          in 5 days            999 bytes
slurm-a: queue is paused
old does not fit: it needs 2 GPUs, and this host has 1
full cannot run it now: its disk is full
far has not answered: it has not answered within 4 s
new has to build the Python environment first, 2 min or so.
gpu02 is chosen: it is ready first (at once; slurm-a in 1 min, by an estimate)."""


def test_long_names_and_reasons_stay_within_the_width() -> None:
    offers = [
        offer("g" * 200),
        offer("b", fits=False, why_not="no " * 100),
        offer(
            "c", free_gpus=10**7, gpus=10**7, starts_in_s=9e8, missing_bytes=10**18, send_s=9e8, price_per_gpu_hour=1e15
        ),
    ]
    offers += [offer("g" * 40 + number) for number in ("01", "02")]
    *rows, chosen = table_of(choose(offers)).split("\n")
    assert len(rows[1].split()[0]) == 30
    assert [rows[number].split()[0][-3:] for number in (4, 5)] == ["g01", "g02"]
    assert max(map(len, rows[:4])) < 140, rows
    assert max(len(row) for row in rows if row.startswith(("b ", "  no"))) <= 100
    # It can be copied.
    assert "g" * 200 in rows
    assert chosen.startswith("  is chosen")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_960, "1.0 MB"),
        (5_300_000_000, "5.3 GB"),
        (10**19, "10,000.0 PB"),
    ],
)
def test_sizes_have_the_unit_that_suits_them(count: int, text: str) -> None:
    assert size_text(count) == text
