"""The cluster's end of an upload as a real process, without SSH in between."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.store import JobDirectory, Root
from airflow_provider_gpu_cluster.program import build_program
from airflow_provider_gpu_cluster.sources import UploadSource
from airflow_provider_gpu_cluster.upload import Line, Upload


@contextlib.contextmanager
def process(root: Root, verb: str, request: dict[str, Any]) -> Iterator[tuple[BinaryIO, BinaryIO, int]]:
    """Run a verb that goes on after its reply; yield what to read from, what to write to, and the process's id."""
    program = Path(root.own) / build_program().name
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_bytes(build_program().content)
    arguments = [sys.executable, "-I", "-S", str(program), verb]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            out, stream = cast(BinaryIO, child.stdin), io.BufferedReader(cast(io.FileIO, child.stdout))
            out.write(json.dumps({**request, "settings": {"virtual_gpus": 1, "lease_dir": None}}).encode() + b"\n")
            while stream.readline() != protocol.REPLY_MARK + b"\n":
                pass
            assert json.loads(stream.readline()) == {"ok": {}}
            yield stream, out, child.pid
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()


def receive(job: JobDirectory, inputs: Sequence[dict[str, Any]], *sources: UploadSource) -> bool:
    """
    Send inputs as a worker does, and tell whether they are in place.

    :raises Refused: what the cluster says.
    """
    root = Root(str(Path(job.path).parent))

    @contextlib.contextmanager
    def lane() -> Iterator[tuple[BinaryIO, BinaryIO]]:
        with process(root, "fill", {}) as (stream, out, _):
            yield stream, out

    def error_of(error: dict[str, Any]) -> Any:
        return Refused(error["code"], error["message"])

    upload = Upload(sources, Line("the cluster", lane, lambda: 0.0, error_of))
    with process(root, "receive", {"job_id": job.job_id, "inputs": list(inputs)}) as (stream, out, _):
        return upload.converse(stream, out)
