"""What a host looks like: its GPUs, who has them, how busy they are, and who waits for them."""

from __future__ import annotations

import contextlib
import pwd
import time
from typing import TYPE_CHECKING, Callable, Literal, Sequence

from ...gpus.fake_nvml import fake_file, fake_readings
from ...gpus.gpu_readers import readings_now
from ...gpus.gpu_reading import GpuReading
from ...gpus.inventory import Inventory, take_inventory
from ...gpus.leases import printable
from ...gpus.schedule import Holder, QueuedJob, Slot, Wait, plan
from ...linux import processes
from ...protocol import overview as words
from ...store import records
from ...store.directories import Root
from ..own_jobs import SPOILT, tell_whose

if TYPE_CHECKING:
    from ...protocol.overview import EngineView, OverviewGpu, OverviewJob
    from .root_queue import RootQueue

_MIB = 1 << 20
_MOST_CHARACTERS = 1000
_MOST_GPUS = 1 << 20


def host_view(root: Root, queue: RootQueue) -> EngineView:
    """
    Look at this host.

    :raises Refused: its GPUs cannot be listed, or the leases cannot be read.
    """
    found = take_inventory(queue.virtual_gpus)
    leases = queue.open_leases()
    with leases.mutex():
        slots = leases.slots(found.gpus, found.in_use_without_lease(leases.held(found.gpus)))
        waiting = leases.queued_jobs()
    _, waits = plan(waiting, slots, time.time(), [str(gpu) for gpu in found.broken])
    return view_of(found, slots, waiting, waits, _readings(found, queue.virtual_gpus), _teller(root, queue))


def view_of(
    found: Inventory,
    slots: Sequence[Slot],
    waiting: Sequence[QueuedJob],
    waits: dict[QueuedJob, Wait],
    readings: Sequence[GpuReading],
    tell: Callable[[OverviewJob, str, str], None],
) -> EngineView:
    """
    Return what is known of a host.

    :param waits: why each job waits that does not start now.
    :param readings: of the GPUs, in the order of ``slots``.
    :param tell: adds to what is told of a job who has asked for it; from its id and the dispatcher that has it.
    """
    jobs: list[OverviewJob] = []
    gpus: list[OverviewGpu] = []
    places: dict[Holder, int] = {}
    for slot, reading in zip(slots, readings):
        gpu = _gpu(slot, reading)
        if slot.holder is not None:
            # Each lease is written by itself, and may say another moment.
            key = Holder(slot.holder.job_id, slot.holder.user, 0, None, slot.holder.owner)
            if key not in places:
                places[key] = len(jobs)
                jobs.append(_running(slot.holder))
                tell(jobs[-1], slot.holder.job_id, slot.holder.owner)
            gpu["job"] = places[key]
            jobs[places[key]]["gpus"] += 1
        gpus.append(gpu)
    in_order = sorted(waiting, key=lambda queued: (queued.rank, queued.submitted, queued.job_id))
    for place, queued in enumerate(in_order[: words.MOST_WAITING], 1):
        jobs.append(_waiting(queued, place, waits.get(queued)))
        tell(jobs[-1], queued.job_id, queued.owner)
    return {
        "nodes": [{"name": processes.hostname(), "is_up": True, "gpus": gpus}],
        "jobs": jobs,
        "waiting_jobs": len(waiting),
        "waiting_gpus": sum(_sane(queued.gpus) for queued in waiting),
        "broken_gpus": [{"gpu": gpu.gpu, "why": gpu.why} for gpu in found.broken],
        "remarks": found.remarks,
    }


def _gpu(slot: Slot, reading: GpuReading) -> OverviewGpu:
    state = words.LEASED if slot.is_leased else words.FREE if slot.free_at == 0 else words.OTHER
    gpu: OverviewGpu = {"state": state, "type": slot.gpu.type, "index": slot.gpu.number}
    memory_mb = slot.gpu.memory_mb or (reading.total_bytes or 0) // _MIB
    if memory_mb:
        gpu["memory_mb"] = memory_mb
    if reading.memory_bytes is not None:
        gpu["used_mb"] = reading.memory_bytes // _MIB
    if reading.percent is not None:
        gpu["percent"] = reading.percent
    if state == words.OTHER:
        gpu["used_by"] = slot.note
    return gpu


def _running(holder: Holder) -> OverviewJob:
    job: OverviewJob = {"is_running": True, "user": holder.user, "gpus": 0}
    _note_time(job, "since", holder.since or None)
    _note_time(job, "until", holder.until)
    return job


def _waiting(queued: QueuedJob, place: int, wait: Wait | None) -> OverviewJob:
    job: OverviewJob = {"is_running": False, "user": _user(queued.owner), "gpus": _sane(queued.gpus), "place": place}
    _note_time(job, "submitted_at", queued.submitted)
    job["why"] = "it is about to start" if wait is None else _bounded(wait.why)
    if queued.gpu_type is not None:
        job["gpu_type"] = printable(queued.gpu_type)
    return job


def _note_time(job: OverviewJob, name: Literal["since", "until", "submitted_at"], seconds: float | None) -> None:
    # Others wrote it, and may have written any number.
    with contextlib.suppress(ValueError, OverflowError, OSError):
        if seconds is not None:
            job[name] = records.time_of(seconds)


def _bounded(why: str) -> str:
    """Return a sentence that may name very many jobs; none is cut, as only whole names can be hidden from a viewer."""
    whole = printable(why, _MOST_CHARACTERS)
    return whole if len(why) <= _MOST_CHARACTERS else whole.rpartition(", ")[0] + ", ..."


def _sane(gpus: int) -> int:
    return min(gpus, _MOST_GPUS)


def _user(owner: str) -> str:
    """Return the user of a dispatcher, whose name begins with the user's number."""
    number = owner.partition("-")[0]
    try:
        return pwd.getpwuid(int(number)).pw_name
    except (ValueError, KeyError, OverflowError):
        return printable(number)


def _teller(root: Root, queue: RootQueue) -> Callable[[OverviewJob, str, str], None]:
    owner = queue.owner()

    def tell(job: OverviewJob, job_id: str, of: str) -> None:
        job["job_id"] = printable(job_id)
        # Others wrote it, and may have written any id and owner.
        with contextlib.suppress(*SPOILT):
            if of == owner:
                tell_whose(job, root.job(job_id).attempts()[-1])

    return tell


def _readings(found: Inventory, virtual_gpus: int | None) -> list[GpuReading]:
    nothing = [GpuReading() for _ in found.gpus]
    if virtual_gpus is None:
        return readings_now([{"key": gpu.key, "index": gpu.number} for gpu in found.gpus]) or nothing
    try:
        return fake_readings(fake_file(), [gpu.number for gpu in found.gpus]) if fake_file() else nothing
    except (OSError, ValueError):
        return nothing
