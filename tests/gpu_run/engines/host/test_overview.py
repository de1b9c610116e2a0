"""What a host looks like: GPUs of several kinds, their use, and who has them."""

from __future__ import annotations

import json
import math
from typing import Any

from airflow_provider_gpu_cluster.gpu_run.engines.host.overview import _teller, view_of
from airflow_provider_gpu_cluster.gpu_run.gpus.gpu_reading import GpuReading
from airflow_provider_gpu_cluster.gpu_run.gpus.inventory import BrokenGpu, Gpu, Inventory
from airflow_provider_gpu_cluster.gpu_run.gpus.schedule import Holder, QueuedJob, Slot, Wait
from tests.gpu_run.host import Host

A100 = Gpu("GPU-a", 0, "NVIDIA A100", 40960)
T4 = Gpu("GPU-t", 1, "Tesla T4", 15360)
MIG = [Gpu(f"MIG-{n}", 2, "NVIDIA A100 MIG 3g.20gb", 0) for n in (1, 2)]
TRAIN = Holder("train", "ann", 1.7e9, None, "1000-x")


def test_gpus_of_several_kinds_with_their_use_and_who_has_them() -> None:
    slots = [
        Slot(A100, math.inf, "train (ann)", is_leased=True, holder=TRAIN),
        Slot(T4, math.inf, "process 7 (python), which holds no lease"),
        Slot(MIG[0], math.inf, "train (ann)", is_leased=True, holder=TRAIN._replace(since=1.7e9 + 1)),
        Slot(MIG[1], 0, ""),
    ]
    readings = [
        GpuReading(percent=91.0, memory_bytes=1 << 30, total_bytes=40 << 30),
        GpuReading(),
        GpuReading(memory_bytes=1 << 20, total_bytes=20 << 30),
        GpuReading(),
    ]
    asks = QueuedJob("waits", 1, 1.7e9, 2, "T4", None, "0-y")
    starts = QueuedJob("starts", 0, 1.7e9, 1, None, None, "4294967294-y")
    found = Inventory([A100, T4, *MIG], [BrokenGpu("0000:5E:00.0", "GPU is lost")], ["a remark"])
    told: list[tuple[str, str]] = []
    view = view_of(
        found, slots, [asks, starts], {asks: Wait(1, "it needs 2 T4 GPUs")}, readings, lambda job, *of: told.append(of)
    )
    (node,) = view["nodes"]
    assert node["gpus"] == [
        {
            "state": "leased",
            "type": "NVIDIA A100",
            "index": 0,
            "memory_mb": 40960,
            "used_mb": 1024,
            "percent": 91.0,
            "job": 0,
        },
        {
            "state": "other",
            "type": "Tesla T4",
            "index": 1,
            "memory_mb": 15360,
            "used_by": "process 7 (python), which holds no lease",
        },
        # nvidia-smi does not say how much memory an instance has, and NVML does.
        {"state": "leased", "type": "NVIDIA A100 MIG 3g.20gb", "index": 2, "memory_mb": 20480, "used_mb": 1, "job": 0},
        {"state": "free", "type": "NVIDIA A100 MIG 3g.20gb", "index": 2},
    ]
    running, first, second = view["jobs"]
    assert (running["is_running"], running["user"], running["gpus"]) == (True, "ann", 2)
    assert (first["place"], first["why"]) == (1, "it is about to start")
    assert (second["place"], second["why"], second["gpu_type"], second["user"]) == (
        2,
        "it needs 2 T4 GPUs",
        "T4",
        "root",
    )
    # A user that has gone is a number.
    assert first["user"] == "4294967294"
    assert told == [("train", "1000-x"), ("starts", "4294967294-y"), ("waits", "0-y")]
    assert (view["waiting_jobs"], view["waiting_gpus"], view["remarks"]) == (2, 3, ["a remark"])
    assert view["broken_gpus"] == [{"gpu": "0000:5E:00.0", "why": "GPU is lost"}]


def test_what_others_wrote_into_the_queue_is_bounded(host: Host) -> None:
    long = "x" * (1 << 20)
    forged = [
        QueuedJob(job_id, 1, 1.7e9, 10**30, long, None, host.queue.owner()) for job_id in ("../../etc", long, "no-such")
    ]
    waits = {one: Wait(1, long) for one in forged}
    view = view_of(
        Inventory([A100]), [Slot(A100, 0, "")], forged, waits, [GpuReading()], _teller(host.root, host.queue)
    )
    assert len(json.dumps(view)) < 10_000
    assert view["waiting_gpus"] < 1 << 30
    assert not any("by" in job for job in view["jobs"])


def test_a_long_sentence_is_not_cut_within_a_name() -> None:
    asks = QueuedJob("waits", 1, 1.7e9, 1, None, None, "0-y")
    why = "it needs 1 GPU; there are " + ", ".join(f"1 with secret-{n} (ann)" for n in range(1000))
    (job,) = view_of(Inventory([]), [], [asks], {asks: Wait(1, why)}, [], lambda *_: None)["jobs"]
    assert len(job["why"]) <= 1005
    assert job["why"].endswith(" (ann), ...")


def test_a_lease_file_may_say_any_time() -> None:
    for since, until in ((math.inf, math.nan), (1e300, -1e300), (0, None)):
        holder: Any = Holder("x", "ann", since, until)
        slot = Slot(A100, math.inf, "", is_leased=True, holder=holder)
        (job,) = view_of(Inventory([A100]), [slot], [], {}, [GpuReading()], lambda *_: None)["jobs"]
        assert not {"since", "until"} & job.keys()
