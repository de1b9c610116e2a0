"""
Which job writes which file of a destination.

Within one DAG run, two jobs never write the same file of a destination: the second one is refused. A job of another
run replaces what is there, and so does a job that a user started over. Therefore whoever writes files into a
destination first writes its claim to them there, and then looks for other claims::

    claim(sink, FilesClaim.of(job_id, writer, paths))
    sink.put(...)

Of two that write their claims at the same time, at least one thus finds the other's.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.outputs import Writer
    from airflow_provider_gpu_cluster.sinks.sink import Sink

log = logging.getLogger(__name__)

FOLDER = ".gpu-collect"
"""Folder of the claims, in the destination."""

_MODE = 0o644
# More than one round is needed only if several tasks collect the same job into the same destination at the same time.
_MOST_ROUNDS = 10


@dataclass(frozen=True)
class FilesClaim:
    """
    A job's claim to files of a destination. The task is the one that launched the job.

    :param generation: changes when a user starts the job over.
    :param paths: the files, relative to the destination.
    """

    job_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    generation: str
    paths: frozenset[str]

    @classmethod
    def of(cls, job_id: str, writer: Writer, paths: Collection[str]) -> FilesClaim | None:
        """Return the claim of a job; None for one that belongs to no DAG run."""
        if not writer.get("run_id"):
            return None
        map_index = writer.get("map_index")
        return cls(
            job_id,
            writer["dag_id"],
            writer["run_id"],
            writer["task_id"],
            -1 if map_index is None else map_index,
            writer["generation"],
            frozenset(paths),
        )

    @property
    def path(self) -> str:
        """Where it is kept: the next run of the same task replaces it, so that claims do not pile up."""
        key = json.dumps([self.dag_id, self.task_id, self.map_index])
        return f"{FOLDER}/{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    @property
    def task(self) -> str:
        """The task, in words."""
        return f"task {self.task_id}" + (f", map index {self.map_index}" if self.map_index >= 0 else "")

    def excludes(self, other: FilesClaim) -> bool:
        """Return whether a job of the same run must not write what this one has claimed."""
        if (self.dag_id, self.run_id) != (other.dag_id, other.run_id) or self.job_id == other.job_id:
            return False
        is_started_over = (self.task_id, self.map_index) == (other.task_id, other.map_index) and (
            self.generation != other.generation
        )
        return not is_started_over and not self.paths.isdisjoint(other.paths)

    def with_paths_of(self, other: FilesClaim | None) -> FilesClaim:
        """Return the claim of a job of which another part was claimed before."""
        if other is None or other.job_id != self.job_id:
            return self
        return replace(self, paths=self.paths | other.paths)

    def to_bytes(self) -> bytes:
        """Return it in the form in which it is kept."""
        return json.dumps({**asdict(self), "paths": sorted(self.paths)}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> FilesClaim | None:
        """Read it back; None if it is no claim, because anybody may write into a destination."""
        try:
            value: Any = json.loads(content)
            claim = cls(**{**value, "paths": frozenset(value["paths"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        texts = (claim.job_id, claim.dag_id, claim.run_id, claim.task_id, claim.generation, *claim.paths)
        return claim if all(isinstance(text, str) for text in texts) and isinstance(claim.map_index, int) else None


def claim(sink: Sink, mine: FilesClaim) -> None:
    """
    FilesClaim files of a destination, before any of them is written.

    :raises InvalidJobError: another job of the same DAG run writes one of them.
    """
    with sink.claiming(FOLDER):
        is_written = False
        for _ in range(_MOST_ROUNDS):
            there = _claims_in(sink)
            for other in there.values():
                if other.excludes(mine):
                    if is_written:
                        sink.remove(mine.path)
                    raise _taken(sink, other, mine)
            before = there.get(mine.path)
            wanted = mine.with_paths_of(before)
            if wanted == before:
                break
            if not is_written:
                _tell_replaced(sink, mine, there)
            sink.put(mine.path, memoryview(wanted.to_bytes()), _MODE)
            is_written = True


def _claims_in(sink: Sink) -> dict[str, FilesClaim]:
    try:
        contents = {path: sink.read(path) for path in sink.listed(FOLDER)}
    except Exception as error:
        # For example a bucket into which this user may only write.
        log.warning("%s: cannot see which other jobs write there: %s", sink, error)
        return {}
    claims = {path: FilesClaim.from_bytes(content) for path, content in contents.items()}
    return {path: claim for path, claim in claims.items() if claim is not None}


def _taken(sink: Sink, other: FilesClaim, mine: FilesClaim) -> InvalidJobError:
    shared = sorted(other.paths & mine.paths)
    more = f" and {len(shared) - 1:,} more" if len(shared) > 1 else ""
    return InvalidJobError(
        f"job {mine.job_id} ({mine.task}) would overwrite {sink}/{shared[0]}{more}, which come from job {other.job_id} "
        f"({other.task}) of the same DAG run; nothing was collected. Give each job a destination of its own, such as "
        f"{sink}/{{{{ ti.map_index }}}} in a mapped task, or {sink}/{{{{ ti.task_id }}}}. (To replace the other job's "
        f"files, remove {sink}/{FOLDER} first.)"
    )


def _tell_replaced(sink: Sink, mine: FilesClaim, there: dict[str, FilesClaim]) -> None:
    for other in there.values():
        if other.job_id != mine.job_id and not other.paths.isdisjoint(mine.paths):
            log.info("%s: outputs of job %s (run %s) are replaced", sink, other.job_id, other.run_id)
