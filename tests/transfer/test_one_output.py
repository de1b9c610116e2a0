"""One file from its stream: whole and as it was sent, or an error."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from airflow_provider_gpu_cluster.exceptions import CollectError
from airflow_provider_gpu_cluster.gpu_run.jobs.output_reading import answer_send
from airflow_provider_gpu_cluster.gpu_run.protocol.lines import BrokenStream, GarbledStream
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.transfer.one_output import checksum_of, pieces_of


def sent(tmp_path: Path, content: bytes) -> tuple[bytes, str]:
    """Return the stream of a file, and its stamp."""
    root = Root(str(tmp_path / "root"))
    root.job("job").create()
    path = Path(root.job("job").at("outputs", "x"))
    path.write_bytes(content)
    os.truncate(path, len(content) + (3 << 20) if len(content) > 100 else len(content))
    reply = answer_send(root, {"job_id": "job", "path": "x"})
    out = io.BytesIO()
    assert reply.body is not None
    reply.body(out)
    return out.getvalue(), str(reply.value["stamp"])


@pytest.mark.parametrize("size", [0, 5, 3 << 20])
def test_it_arrives_whole_or_not_at_all(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    whole = content + bytes(3 << 20 if size > 100 else 0)
    stream, stamp = sent(tmp_path, content)
    pieces = list(pieces_of(io.BytesIO(stream), "x", stamp, len(whole)))
    assert b"".join(pieces) == whole
    assert max(map(len, pieces), default=0) <= 1 << 20
    for end in range(0, len(stream) - 100, max(1, len(stream) // 20)):
        with pytest.raises((BrokenStream, GarbledStream)):
            list(pieces_of(io.BytesIO(stream[:end]), "x", stamp, len(whole)))
    for other, told in ((stamp + "1", len(whole)), (stamp, len(whole) + 1)):
        if size > 100 or told != len(whole):
            with pytest.raises(CollectError, match="'x' has changed"):
                list(pieces_of(io.BytesIO(stream), "x", other, told))


def test_what_is_damaged_on_its_way(tmp_path: Path) -> None:
    stream, stamp = sent(tmp_path, os.urandom(2 << 20))
    damaged = bytearray(stream)
    damaged[1 << 19] ^= 1
    with pytest.raises(CollectError, match="did not arrive as it was sent"):
        list(pieces_of(io.BytesIO(damaged), "x", stamp, 5 << 20))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"file": 0, "fault": "changed while it was being collected"}', CollectError),
        (b'{"file": 0, "size": 9, "mode": 1, "stamp": "s", "at": 0, "until": 9}\n{"fault": "gone"}', CollectError),
        (b'{"file": 0, "size": 9, "mode": 1, "stamp": "s", "at": 0, "until": 9}\n{"data": 99}', GarbledStream),
        (b'{"file": 0, "size": 9, "mode": 1, "stamp": "s", "at": 0, "until": 9}\n{"sha256": "x"}', GarbledStream),
        (b'{"file": 0, "size": 9, "mode": 1, "stamp": "s", "at": 0, "until": 9}\n{"zeros": 1e9}', GarbledStream),
        (b'{"small": []}', CollectError),
        (b'{"small": [[1, 9, 1, "x"]]}\n123456789', CollectError),
        (b"7", GarbledStream),
        (b'{"end": 1}', GarbledStream),
    ],
)
def test_what_a_cluster_may_send_instead(line: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(pieces_of(io.BytesIO(line + b"\n"), "x", "s", 9))


def test_no_checksum() -> None:
    with pytest.raises(CollectError, match="'x' cannot be read"):
        checksum_of(io.BytesIO(b'{}\n{"sha256": null}\n'), "x")
