"""
A cluster that answers anything: it is read with bounds, checked, and told in one class of error.

The cluster is a real OpenSSH server; in the place of the program lies a fake that answers what the test says, which no
real one does.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection import reply as reply_module
from airflow_provider_gpu_cluster.connection import session as session_module
from airflow_provider_gpu_cluster.connection.program import build_program
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.connection.wire_types import WrongType, checked
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterProtocolError,
)
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import replies
from airflow_provider_gpu_cluster.sinks.local import LocalSink
from airflow_provider_gpu_cluster.sources import parse_sources
from airflow_provider_gpu_cluster.watch import channel as channel_module
from airflow_provider_gpu_cluster.watch.channel import WatchChannel
from tests.harness import jobs
from tests.harness.patience import PATIENCE_S

Say = Callable[..., None]

MARK = b"\x1e gpu-run 1 \x1e\n"
FAKE = """\
import sys, os
while sys.stdin.buffer.readline() == b"\\n":
    pass
here = os.path.dirname(os.path.abspath(__file__))
exec(open(here + "/says.py").read())
"""
STATUS = {"job_id": "job", "state": "RUNNING"}
HANDLE = {"job_id": "job", "job_dir": "/j", "engine": "host", "submitted_at": None, "gpus": 1}
LOG = {"status": STATUS, "attempt": 1, "offset": 0, "log_bytes": 0, "length": 0}


@pytest.fixture
def say(cluster_settings: ClusterSettings) -> Say:
    """Return a function that sets what the program answers: these bytes, then Python that runs there."""
    folder = Path(cluster_settings.root_dir) / ".gpu-run"
    folder.mkdir(parents=True)
    (folder / build_program().name).write_text(FAKE)

    def says(answer: bytes, then: str = "") -> None:
        (folder / "answer").write_bytes(answer)
        (folder / "says.py").write_text(
            f"o = sys.stdout.buffer; o.write(open(here + '/answer', 'rb').read()); o.flush()\n{then}\n"
        )

    return says


@pytest.fixture
def quick(cluster_settings: ClusterSettings, ssh_connect: Callable[..., paramiko.SSHClient]) -> Iterator[Cluster]:
    """Return the cluster, which is asked once."""
    with Cluster(cluster_settings, ssh_connect, retry_for_s=0) as cluster:
        yield cluster


def ok(value: object) -> bytes:
    return MARK + json.dumps({"ok": value}).encode() + b"\n"


def verbs(cluster: Cluster, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return a call of each verb."""
    (folder / "data").write_bytes(b"data")
    sources = parse_sources(code=None, data=str(folder / "data"), models=None, base_dir=folder)
    return {
        "install-check": cluster.check,
        "capacity": cluster.capacity,
        "stage": lambda: cluster.stage("job", sources, record=jobs.record()),
        "submit": lambda: jobs.submit(cluster, job_id="job", sources=sources),
        "status": lambda: cluster.statuses(["job"]),
        "logs": lambda: cluster.read_log("job", reader="r"),
        "cancel": lambda: cluster.cancel(["job"], requested_by="me"),
        "send": lambda: cluster.collect("job", LocalSink(folder / "home")),
        "gc": lambda: cluster.collect_garbage(1),
    }


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(MARK + b"[" * 100000 + b"\n", "nested too deeply", id="deep"),
        pytest.param(MARK + b"{\xff}\n", "no JSON", id="malformed"),
        pytest.param(MARK + b'{"ok": ' + b"9" * 5000 + b"}\n", "no JSON|is not an object", id="a huge number"),
        pytest.param(MARK + b"[1]\n", "is not an object", id="a list"),
        pytest.param(MARK + b"{}\n", "is not an object", id="neither ok nor error"),
        pytest.param(MARK + b'{"ok": [' + b"1," * (1 << 16) + b"1]}\n", "more than 1000 values", id="many values"),
        pytest.param(MARK + b" " * (2 << 20) + b"\n", "longer than", id="a long line"),
        pytest.param(MARK + b'{"error": 7}\n', "is not an object", id="an error that is none"),
        pytest.param(MARK + b'{"error": {"code": ["x"], "message": ""}}\n', "code: ", id="a code that is none"),
        pytest.param(MARK + b'{"error": {"code": "\x1b[31m"}}\n', "no JSON", id="escape sequences"),
    ],
)
def test_no_reply_of_any_verb(monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str) -> None:
    monkeypatch.setattr(reply_module, "MOST_REPLY_BYTES", 1 << 20)
    monkeypatch.setattr(reply_module, "MOST_VALUES", 1000)
    for verb in protocol.VERBS:
        with pytest.raises(GpuClusterProtocolError, match=words) as raised:
            reply_module.read_reply(io.BytesIO(answer), verb, "gpu1")
        assert len(str(raised.value)) < 1500
        assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "answer",
    [
        {"jobs": 9, "handle": [], "entries": {}, "gpus": None},
        {"needs": [7, -1], "jobs": [{}], "is_array": 0},
    ],
)
def test_every_verb_refuses_other_types(quick: Cluster, say: Say, tmp_path: Path, answer: dict[str, Any]) -> None:
    say(ok(answer))
    for call in verbs(quick, tmp_path).values():
        with pytest.raises(GpuClusterProtocolError, match=r"answer|garbled"):
            call()


def work(watch: WatchChannel) -> None:
    """Work for as long as a busy machine may take."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        watch.work()
        select.select([watch], [], [], 1)


@pytest.mark.parametrize(
    "event",
    [
        b"{}",
        b"7",
        pytest.param(b"[" * 100000, id="deep"),
        b'{"event": "status", "key": 1}',
        b'{"event": "place", "key": 1, "attempt": 1, "offset": -1, "note": null}',
        b'{"event": "output", "key": 1, "attempt": 1, "offset": 0, "log_bytes": 0, "data": 7}',
        pytest.param(b"x" * 100000, id="long"),
    ],
)
def test_a_watch_refuses_it(quick: Cluster, say: Say, monkeypatch: pytest.MonkeyPatch, event: bytes) -> None:
    monkeypatch.setattr(channel_module, "_MOST_EVENT_BYTES", 65536)
    say(ok({}) + event + (b"" if event[:1] == b"x" else b"\n"), "import time; time.sleep(60)")
    watch = WatchChannel(quick)
    try:
        with pytest.raises(GpuClusterProtocolError, match="gpu-run watch cannot be right"):
            work(watch)
    finally:
        watch.close()


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        *(("logs", {**LOG, "length": length}) for length in (1 << 45, -1, "abc", 1e308, True, None)),
        ("logs", {**LOG, "offset": -1}),
        ("logs", {**LOG, "attempt": 1 << 64}),
        ("logs", {**LOG, "status": {**STATUS, "state": "BANANA"}}),
        ("status", {"jobs": []}),
        ("status", {"jobs": [{**STATUS, "job_id": "other"}]}),
        ("status", {"jobs": [{**STATUS, "state": 7}]}),
        ("cancel", {"jobs": [STATUS] * 2}),
        ("submit", {"handle": {**HANDLE, "array_size": 1 << 45}, "status": STATUS, "created": True}),
        ("submit", {"handle": {**HANDLE, "job_id": "other"}, "status": STATUS, "created": True}),
        ("submit", {"handle": HANDLE, "created": True}),
        ("stage", {"handle": {**HANDLE, "job_dir": 7}}),
        ("send", {"is_array": False, "entries": [{"path": "a", "kind": "file", "size": 1, "mode": 0}] * 2}),
        ("send", {"is_array": False, "entries": [{"path": "a", "kind": "file", "size": 1 << 45, "mode": 0}]}),
        ("send", {"is_array": True, "entries": [{"path": "../a", "kind": "file", "size": 1, "mode": 0}]}),
        ("capacity", {"gpus": [7], "free_gpus": 1, "waiting_jobs": 0, "waiting_gpus": 0}),
    ],
)
def test_a_field_that_cannot_be(quick: Cluster, say: Say, tmp_path: Path, verb: str, answer: dict[str, Any]) -> None:
    say(ok(answer))
    with pytest.raises(GpuClusterProtocolError):
        verbs(quick, tmp_path)[verb]()


def test_what_is_optional_and_of_another_type_is_missing(quick: Cluster, say: Say) -> None:
    """A job may have written it into its own record."""
    odd = {"pid": "x", "gpus": {}, "gpu_seconds": float("nan"), "message": "\x1b[2J\u202eevil\n", "exit_code": True}
    say(ok({"jobs": [{**STATUS, **odd, "log_tail": "x" * 1000}]}))
    (status,) = quick.statuses(["job"], tail_bytes=100)
    assert (status.pid, status.gpus, status.gpu_seconds, status.exit_code) == (None, (), None, None)
    assert status.message == "?[2J?evil\n"
    assert len(status.log_tail) == 100


@pytest.mark.parametrize(
    ("then", "words", "error"),
    [
        ("while True: o.write(b'x' * 65536)", "prints without end|ended|longer than", GpuClusterError),
        ("o.write(MARK)\nwhile True: o.write(b'x' * 65536)", "longer than", GpuClusterProtocolError),
        # A slow machine may be out of time first.
        ("while True: o.write(b'\\n' * 65536)", "prints without end|signs of life", GpuClusterError),
        ("import time\nwhile True: o.write(b'\\n'); o.flush(); time.sleep(0.05)", "signs of life", GpuClusterError),
        (
            "o.write(MARK + b'{\"ok\": {\"needs\": [0]}}\\n')\nwhile True: o.write(b'\\n' * 65536)",
            "only signs of life",
            GpuClusterProtocolError,
        ),
        (
            'o.write(MARK + b\'{"ok": {"needs": [0]}}\\n\' + b\'{"want": [["x", [[0, 1]]]]}\\n\' * 100000)',
            "not offered|more than it was offered",
            GpuClusterProtocolError,
        ),
        (
            "o.write(MARK + b'{\"ok\": {\"needs\": [0]}}\\n')\nwhile True: o.write(b'x' * 65536)",
            "longer than",
            GpuClusterProtocolError,
        ),
        (
            "while True: os.write(2, b'x' * 65536)",
            "nothing came for 1 s",
            GpuClusterConnectionError,
        ),
    ],
)
def test_without_end(
    quick: Cluster,
    say: Say,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    then: str,
    words: str,
    error: type[GpuClusterError],
) -> None:
    """Neither time nor memory is used without bound."""
    monkeypatch.setattr(session_module, "ANSWER_AFTER_FILES_WITHIN_S", 1.0)
    monkeypatch.setattr("airflow_provider_gpu_cluster.connection.connection.IDLE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(reply_module, "MOST_REPLY_BYTES", 1 << 22)
    say(b"", f"MARK = {MARK!r}\n{then}")
    began = time.monotonic()
    with pytest.raises(error, match=words):
        verbs(quick, tmp_path)["submit"]()
    assert time.monotonic() - began < 60


def test_an_error_of_megabytes_is_cut_and_cleaned(quick: Cluster, say: Say) -> None:
    message = "\x1b[31m\u202e" + "x\r" * (1 << 20)
    say(MARK + json.dumps({"error": {"code": "?", "message": message}}).encode() + b"\n")
    with pytest.raises(GpuClusterError) as raised:
        quick.capacity()
    assert len(str(raised.value)) < 5000
    assert str(raised.value).isprintable()
    say(MARK + json.dumps({"error": {"code": "internal", "message": "BlockingIOError: [Errno 11] x"}}).encode() + b"\n")
    with pytest.raises(GpuClusterConnectionError, match="no room for another process"):
        quick.capacity()


def test_whatever_a_reply_is_made_of(tmp_path: Path) -> None:
    """Nothing but the one error comes of it."""
    chance = random.Random(7)
    atoms: list[Any] = [None, True, -1, 0, 1 << 70, 1.5, float("inf"), "", "job", "RUNNING", "\ud800", [], {}]
    names = [*replies.Check.__annotations__, *STATUS, *HANDLE, *LOG, "jobs", "gpus", "needs"]

    def anything(depth: int) -> Any:
        kind = chance.randrange(4) if depth else 0
        if kind == 1:
            return [anything(depth - 1) for _ in range(chance.randrange(3))]
        if kind > 1:
            return {chance.choice(names): anything(depth - 1) for _ in range(chance.randrange(8))}
        return chance.choice(atoms)

    kinds = [replies.Check, replies.Capacity, replies.SubmitReply, replies.StatusReply, replies.LogReply]
    for _ in range(2000):
        with contextlib.suppress(WrongType):
            checked(anything(4), chance.choice(kinds))
