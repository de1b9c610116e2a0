"""The cluster's end of an upload as a real process, without SSH in between."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from airflow_provider_gpu_cluster.connection.program import build_program
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.connection.settings import STREAM
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.store.directories import JobDirectory, Root
from airflow_provider_gpu_cluster.sources import Source
from airflow_provider_gpu_cluster.transfer.upload import Upload


@contextlib.contextmanager
def process(root: Root, verb: str, request: dict[str, Any]) -> Iterator[tuple[Any, BinaryIO, BinaryIO]]:
    """
    Run a verb that goes on after its reply; yield the reply, what to read from, and what to write to.

    :raises Refused: it does not.
    """
    program = Path(root.own) / build_program().name
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: others may be about to start it.
        draft = program.with_suffix(f".{uuid.uuid4().hex}")
        draft.write_bytes(build_program().content)
        draft.replace(program)
    arguments = [sys.executable, "-I", "-S", str(program), verb]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            out, stream = cast(BinaryIO, child.stdin), io.BufferedReader(cast(io.FileIO, child.stdout))
            out.write(json.dumps({**request, "settings": {"virtual_gpus": 1, "lease_dir": None}}).encode() + b"\n")
            while (line := stream.readline()) != protocol.REPLY_MARK + b"\n":
                assert line, "it ended without a reply"
            reply = json.loads(stream.readline())
            if "error" in reply:
                raise error_of(reply["error"])
            yield reply["ok"], stream, out
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()


def error_of(error: dict[str, Any]) -> Any:
    return Refused(error["code"], error["message"])


def _session() -> Session:
    """Return what an upload asks of its session. Here is no SSH, and a line so short that one stream does."""
    settings = SimpleNamespace(name="the cluster", transfer=STREAM)
    connection = SimpleNamespace(round_trip_s=0.0, stop_if_interrupted=lambda: None)
    return cast(Session, SimpleNamespace(settings=settings, connection=connection, error_of=error_of))


def stage(
    job: JobDirectory,
    inputs: Sequence[Mapping[str, Any]],
    sources: Sequence[Source],
    *,
    meanwhile: Callable[[], object] = lambda: None,
) -> list[int]:
    """
    Stage inputs as a worker does, and return the numbers of those that were needed.

    :param meanwhile: called when the cluster has said which it needs.
    :raises Refused: what the cluster says.
    """
    root = Root(str(Path(job.path).parent))
    upload = Upload(sources, _session())
    request = {"job_id": job.job_id, "inputs": list(inputs), "record": {}}
    with process(root, "stage", request) as (reply, stream, out):
        meanwhile()
        result = upload.converse(reply, stream, out)
        assert result is not None
        assert result["needs"] == []
        needs: list[int] = reply["needs"]
        return needs
