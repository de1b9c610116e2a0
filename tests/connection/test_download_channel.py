"""A channel's buffer: every byte in its order, in large pieces, and never a wait without end."""

from __future__ import annotations

import random
import threading
import time

import pytest
from paramiko.buffered_pipe import PipeTimeout

from airflow_provider_gpu_cluster.connection.download_channel import DownloadPipe


def test_every_byte_comes_in_its_order() -> None:
    pipe = DownloadPipe()
    content = random.randbytes(3_000_000)
    cuts = sorted(random.sample(range(len(content)), 200))

    def feed() -> None:
        for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
            pipe.feed(content[start:end])
        pipe.close()

    thread = threading.Thread(target=feed)
    thread.start()
    got = bytearray()
    while piece := pipe.read(random.choice([1, 100, 40_000, 1 << 20]), 5):
        got += piece
    thread.join()
    assert got == content


def test_a_little_is_not_kept_back() -> None:
    pipe = DownloadPipe()
    pipe.feed(b"{}\n")
    assert (pipe.read_ready(), len(pipe)) == (True, 3)
    began = time.monotonic()
    assert pipe.read(1 << 20, 5) == b"{}\n"
    assert time.monotonic() - began < 4
    assert (pipe.read_ready(), len(pipe)) == (False, 0)


def test_much_comes_at_once() -> None:
    pipe = DownloadPipe()
    for _ in range(100):
        pipe.feed(bytes(32_768))
    assert len(pipe.read(1 << 20, 5)) == 1 << 20
    assert len(pipe) == 100 * 32_768 - (1 << 20)


def test_silence_ends() -> None:
    with pytest.raises(PipeTimeout):
        DownloadPipe().read(1, 0.05)


@pytest.mark.parametrize("rest", [b"", b"rest"])
def test_what_was_there_at_the_end_is_read_before_it(rest: bytes) -> None:
    pipe = DownloadPipe()
    reader: list[bytes] = []
    thread = threading.Thread(target=lambda: reader.extend([pipe.read(100, None), pipe.read(100, None)]))
    thread.start()
    if rest:
        pipe.feed(rest)
    pipe.close()
    thread.join(5)
    assert reader == [rest, b""]
