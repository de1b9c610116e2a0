"""Watching jobs over one connection: the same events in the same order, whatever happens to the connection."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection import connection
from airflow_provider_gpu_cluster.connection.session import Session
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterConnectionError,
    GpuClusterError,
    GpuClusterSetupError,
    InvalidJobError,
    LaunchError,
)
from airflow_provider_gpu_cluster.jobs.notify import notify_when
from airflow_provider_gpu_cluster.jobs.status import JobState, JobStatus
from airflow_provider_gpu_cluster.logs.relay import LogPosition, Output
from airflow_provider_gpu_cluster.triggers.watchers import watcher_of
from airflow_provider_gpu_cluster.watch import channel, loop
from airflow_provider_gpu_cluster.watch.events import (
    Acked,
    Failure,
    Outage,
    Place,
    Points,
    Printed,
    WatchEvent,
)
from airflow_provider_gpu_cluster.watch.mailbox import Mailbox
from airflow_provider_gpu_cluster.watch.polling import WINDOW_BYTES
from airflow_provider_gpu_cluster.watch.subscriptions import Subscription
from airflow_provider_gpu_cluster.watch.watcher import Watcher
from tests.harness import jobs
from tests.harness.leftovers import processes_under
from tests.harness.patience import PATIENCE_S
from tests.servers.proxy import CutProxy
from tests.servers.sshd import RealSshd

Connect = Callable[..., paramiko.SSHClient]
MakeWatcher = Callable[..., Watcher]
Event = TypeVar("Event")


class Waiting:
    """
    Waits for a job as a trigger does, and checks that each byte of output comes where it belongs.

    :param reader: whom the output is for; None for nobody.
    :param acks: whether to acknowledge output that has come.
    """

    def __init__(
        self, watcher: Watcher, job_id: str, *, reader: str | None = "reader", acks: bool = True, when: Any = None
    ) -> None:
        self.seen: list[WatchEvent] = []
        self.output = bytearray()
        self._acks = acks
        self._next = LogPosition(0, 0)
        self._acked = LogPosition(0, 0)
        self._events: queue.Queue[WatchEvent] = queue.Queue()
        self.subscription = watcher.subscribe(job_id, self._events.put, reader=reader, poll_interval_s=0.2, when=when)

    def take(self, timeout_s: float = PATIENCE_S) -> WatchEvent:
        """Return the next event."""
        event = self._events.get(timeout=timeout_s)
        self.seen.append(event)
        if isinstance(event, Place):
            place = event.position
            if place.attempt != self._next.attempt:
                self.output = bytearray(place.offset)
            # Not behind what the cluster has said that it knows, nor ahead of what was acknowledged.
            elif self._acked.attempt == place.attempt:
                assert self._acked.offset <= place.offset <= len(self.output)
            self._next = place
        elif isinstance(event, Output):
            assert event.start == self._next, "there is a gap"
            assert event.end.offset <= event.log_bytes
            self._next = event.end
            self.output[event.start.offset : event.end.offset] = event.data
            if self._acks:
                self.subscription.ack(event.end, {"shown": event.end.offset})
        elif isinstance(event, Acked):
            self._acked = event.position
        return event

    def goes_on_at(self, place: LogPosition) -> None:
        """Expect the next output there."""
        self._next = place

    def until(self, kind: type[Event], check: Callable[[Event], bool] = lambda event: True) -> Event:
        """Return the next event of a kind for which something is true."""
        while True:
            event = self.take()
            if isinstance(event, kind) and check(event):
                return event

    def to_the_end(self) -> JobStatus:
        """Return the job's final status, when all of its output has come and is acknowledged."""
        status = self.until(JobStatus, lambda status: status.final)
        while len(self.output) < status.log_bytes or self._acked.offset < status.log_bytes:
            self.take()
        return status

    @property
    def states(self) -> list[str]:
        """The states the job was in, each once."""
        return list(dict.fromkeys(str(event.state) for event in self.seen if isinstance(event, JobStatus)))

    def rest(self) -> list[WatchEvent]:
        """Return what has come and was not taken."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._events.get_nowait())
        return found


@pytest.fixture(autouse=True)
def every_watcher_ends(monkeypatch: pytest.MonkeyPatch, eventually: Any) -> Iterator[None]:
    """See to it that no watcher lingers for long, and that all come to their end when nobody subscribes any more."""
    monkeypatch.setattr(loop, "LINGER_S", 0.2)
    subscriptions: list[Subscription] = []
    add = Mailbox._add

    def remember(*args: Any) -> Subscription | None:
        subscription: Subscription | None = add(*args)
        if subscription is not None:
            subscriptions.append(subscription)
        return subscription

    monkeypatch.setattr(Mailbox, "_add", remember)
    yield
    for subscription in subscriptions:
        subscription.close()
    eventually(lambda: not watcher_threads())


@pytest.fixture
def make_watcher(cluster_settings: ClusterSettings, ssh_connect: Connect) -> MakeWatcher:
    """Return a function that makes a watcher of this test's cluster, perhaps through a proxy."""

    def make(port: int | None = None, **settings: Any) -> Watcher:
        changed = dataclasses.replace(cluster_settings, **settings)
        return Watcher(changed.conn_id, lambda: Cluster(changed, lambda: ssh_connect(port)))

    return make


def watcher_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("watcher of ")]


def far_ends(folder: Path) -> list[int]:
    """Return the processes that run ``gpu-run watch`` on the cluster."""
    found = []
    for pid in processes_under(folder):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b".pyz\0watch\0"):
                found.append(pid)
    return found


REFUSE = 'echo "no long commands" >&2; exit 1'
KILL_AT_ONCE = "kill -9 $$"
KILL_SOON = f'exec timeout -s KILL 0.5 {sys.executable} "$@"'
SAY_NOTHING = "exec sleep 60"


@pytest.fixture
def python_that(cluster_folder: Path) -> Callable[[str], str]:
    """Return a function that makes a Python for the cluster which does something else when it is to run ``watch``."""

    def make(script: str) -> str:
        path = cluster_folder / "python"
        path.write_text(f'#!/bin/sh\ncase "$*" in *" watch") {script};; esac\nexec {sys.executable} "$@"\n')
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture(params=["watch", "poll"])
def watcher(request: pytest.FixtureRequest, make_watcher: MakeWatcher, python_that: Callable[[str], str]) -> Watcher:
    """Return a watcher of a cluster, and one of a cluster that lets no command run for long."""
    return make_watcher() if request.param == "watch" else make_watcher(python=python_that(REFUSE))


# -- in order, by the channel or by asking -----------------------------------------------------------------------


def test_the_life_of_a_job(cluster: Cluster, watcher: Watcher, tmp_path: Path) -> None:
    jobs.submit(cluster, "sleep 60", job_id="other", gpus=4)
    command = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo hello; echo bye >&2; exit 3"
    jobs.submit(cluster, command, job_id="job", gpus=1)
    waiting = Waiting(watcher, "job")
    waiting.until(JobStatus, lambda status: status.state is JobState.QUEUED)
    cluster.cancel(["other"], requested_by="me")
    waiting.until(JobStatus, lambda status: status.state is JobState.RUNNING)
    (tmp_path / "go").touch()
    end = waiting.to_the_end()
    assert waiting.states == ["QUEUED", "RUNNING", "FAILED"]
    assert (end.exit_code, end.attempt, end.log_tail) == (3, 1, "bye\n")
    assert bytes(waiting.output) == b"hello\nbye\n"
    kinds = [type(event) for event in waiting.seen]
    assert kinds.index(Place) < kinds.index(Output)
    assert kinds.count(Place) == 1


def test_one_of_those_who_wait_tells_what_is_due_and_has_it_noted(
    cluster: Cluster, cluster_settings: ClusterSettings, watcher: Watcher, eventually: Any
) -> None:
    jobs.submit(cluster, "sleep 60", job_id="job", gpus=1, time_limit_s=100.0)
    when = notify_when({"time_limit_in": 100, "idle": True})
    waiting = [Waiting(watcher, "job", reader=None, when=when) for _ in range(2)]
    for one in waiting:
        one.until(JobStatus, lambda status: status.state is JobState.RUNNING)
    note = Path(cluster_settings.root_dir, "job/.job/attempts/1/told/time_limit_in.json")
    eventually(note.exists)
    cluster.cancel(["job"], requested_by="the test")
    for one in waiting:
        one.until(JobStatus, lambda status: status.final)
    statuses = [event for one in waiting for event in one.seen if isinstance(event, JobStatus)]
    ((notice,),) = (status.due for status in statuses if status.due)
    assert (notice["event"], notice["attempt"], notice["tries"]) == ("time_limit_in", 1, 1)
    watcher.note_told("job", notice).result(timeout=PATIENCE_S)
    assert json.loads(note.read_text())["state"] == "sent"


def test_without_a_reader_there_is_no_output(cluster: Cluster, watcher: Watcher) -> None:
    jobs.submit(cluster, "echo hello", job_id="job")
    waiting = Waiting(watcher, "job", reader=None)
    waiting.until(JobStatus, lambda status: status.final)
    assert {type(event) for event in [*waiting.seen, *waiting.rest()]} == {JobStatus}


def test_output_arrives_byte_for_byte(cluster: Cluster, cluster_settings: ClusterSettings, watcher: Watcher) -> None:
    """More than fits into the window, and all of it no text."""
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 2000)"
    jobs.submit(cluster, f"{sys.executable} -c '{script}'", job_id="job")
    waiting = Waiting(watcher, "job")
    waiting.to_the_end()
    assert bytes(waiting.output) == bytes(range(256)) * 2000
    assert waiting.output == (Path(cluster_settings.root_dir) / "job/logs/training.log").read_bytes()


def test_no_more_is_delivered_than_is_acknowledged(cluster: Cluster, watcher: Watcher) -> None:
    jobs.submit(cluster, "head -c 300000 /dev/zero", job_id="job")
    jobs.wait(cluster, "job")
    waiting = Waiting(watcher, "job", acks=False)
    while len(waiting.output) < WINDOW_BYTES:
        waiting.take()
    # What comes next is the answer to the acknowledgement, not more of the same.
    waiting.subscription.ack(LogPosition(1, 100), {})
    waiting.until(Acked)
    waiting.until(Output)
    assert len(waiting.output) == WINDOW_BYTES + 100


def test_an_acknowledgement_ahead_skips_what_is_between(cluster: Cluster, watcher: Watcher) -> None:
    jobs.submit(cluster, "head -c 300000 /dev/zero; echo end", job_id="job")
    jobs.wait(cluster, "job")
    waiting = Waiting(watcher, "job", acks=False)
    while len(waiting.output) < WINDOW_BYTES:
        waiting.take()
    waiting.subscription.ack(LogPosition(1, 299_000), {})
    assert waiting.until(Acked) == Acked(LogPosition(1, 299_000))
    waiting.goes_on_at(LogPosition(1, 299_000))
    assert waiting.until(Output) == Output(LogPosition(1, 299_000), bytes(1000) + b"end\n", 300_004)


def test_a_note_comes_back_with_the_place(cluster: Cluster, watcher: Watcher) -> None:
    jobs.submit(cluster, "echo hello", job_id="job")
    first = Waiting(watcher, "job")
    first.to_the_end()
    first.subscription.close()
    assert Waiting(watcher, "job").until(Place) == Place(LogPosition(1, 6), {"shown": 6})
    assert Waiting(watcher, "job", reader="another").until(Place) == Place(LogPosition(1, 0), None)


def test_what_was_acknowledged_last_counts_although_nobody_listens_any_more(cluster: Cluster, watcher: Watcher) -> None:
    jobs.submit(cluster, "echo hello", job_id="job")
    jobs.wait(cluster, "job")
    first = Waiting(watcher, "job", acks=False)
    first.until(Output)
    first.subscription.ack(LogPosition(1, 6), {"all": True})
    first.subscription.close()
    assert Waiting(watcher, "job").until(Place) == Place(LogPosition(1, 6), {"all": True})


def test_a_new_attempt_begins_at_its_own_place(cluster: Cluster, watcher: Watcher) -> None:
    jobs.submit(cluster, "echo one; exit 1", job_id="job")
    first = Waiting(watcher, "job")
    first.to_the_end()
    jobs.submit(cluster, "echo second", job_id="job", request_key="try-2")
    place = first.until(Place)
    assert place == Place(LogPosition(2, 0), None)
    assert first.until(Output) == Output(LogPosition(2, 0), b"second\n", 7)
    assert first.until(Acked) == Acked(LogPosition(2, 7))


def test_who_listens_no_more_is_told_nothing(cluster: Cluster, watcher: Watcher, tmp_path: Path) -> None:
    jobs.submit(cluster, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done", job_id="job")
    closed, open_ = Waiting(watcher, "job"), Waiting(watcher, "job", reader="another")
    closed.until(JobStatus)
    open_.until(JobStatus, lambda status: status.state is JobState.RUNNING)
    closed.subscription.close()
    closed.rest()
    (tmp_path / "go").touch()
    open_.to_the_end()
    assert closed.rest() == []


def test_who_cannot_take_events_gets_no_more_and_disturbs_nobody(cluster: Cluster, watcher: Watcher) -> None:
    jobs.submit(cluster, "echo hello", job_id="job")
    tried: list[WatchEvent] = []

    def closed_loop(event: WatchEvent) -> None:
        tried.append(event)
        raise RuntimeError("Event loop is closed")

    watcher.subscribe("job", closed_loop, reader="closed", poll_interval_s=0.2)
    assert Waiting(watcher, "job").to_the_end().state is JobState.SUCCEEDED
    assert len(tried) == 1


def test_a_job_that_cannot_be_is_refused_alone(cluster: Cluster, make_watcher: MakeWatcher) -> None:
    watcher = make_watcher()
    jobs.submit(cluster, "echo hello", job_id="job")
    bad, good = Waiting(watcher, "../etc"), Waiting(watcher, "job")
    assert isinstance(bad.until(Failure).error, InvalidJobError)
    assert good.to_the_end().state is JobState.SUCCEEDED
    assert bad.rest() == []


# -- many over one connection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [8, pytest.param(30, marks=pytest.mark.long)])
def test_many_jobs_share_a_connection_and_a_channel(
    count: int,
    cluster: Cluster,
    cluster_folder: Path,
    make_watcher: MakeWatcher,
    cut_proxy: CutProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(count):
        jobs.submit(cluster, f"echo {number}; sleep 1; echo {number}", job_id=f"job-{number}", gpus=0)
    watcher = make_watcher(cut_proxy.port)
    opened: list[object] = []
    hold = Session.hold

    def note(*args: Any) -> Any:
        opened.append(args)
        return hold(*args)

    monkeypatch.setattr(Session, "hold", note)
    for name in ("call", "read", "converse"):
        monkeypatch.setattr(Session, name, None)
    waiting = [Waiting(watcher, f"job-{number}") for number in range(count)]
    assert {one.to_the_end().state for one in waiting} == {JobState.SUCCEEDED}
    assert len(far_ends(cluster_folder)) == 1
    assert [one.output.decode() for one in waiting] == [f"{number}\n{number}\n" for number in range(count)]
    assert (cut_proxy.connections, len(opened)) == (1, 1)


def test_a_thousand_subscriptions_at_once(make_watcher: MakeWatcher) -> None:
    """Both sides have more to say at once than fits between them."""
    watcher = make_watcher()
    events: queue.Queue[tuple[int, WatchEvent]] = queue.Queue()
    for number in range(1000):
        watcher.subscribe(
            f"job-{number}-{'x' * 80}",
            lambda event, number=number: events.put((number, event)),  # type: ignore[misc]
            reader="reader",
            poll_interval_s=1,
        )
    told = dict(events.get(timeout=PATIENCE_S) for _ in range(1000))
    assert {status.state for status in told.values() if isinstance(status, JobStatus)} == {JobState.LOST}
    assert len(told) == 1000


def test_the_connection_is_kept_for_the_next_and_then_closed(
    cluster: Cluster,
    cluster_folder: Path,
    make_watcher: MakeWatcher,
    cut_proxy: CutProxy,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Any,
) -> None:
    monkeypatch.setattr(loop, "LINGER_S", 60)
    jobs.submit(cluster, "true", job_id="job")
    watcher = make_watcher(cut_proxy.port)
    for _ in range(2):
        waiting = Waiting(watcher, "job")
        waiting.to_the_end()
        waiting.subscription.close()
    assert cut_proxy.connections == 1
    (thread,) = watcher_threads()
    monkeypatch.setattr(loop, "LINGER_S", 0.2)
    last = Waiting(watcher, "job")
    last.to_the_end()
    last.subscription.close()
    eventually(lambda: thread not in watcher_threads())
    eventually(lambda: not far_ends(cluster_folder))
    assert Waiting(watcher, "job").to_the_end().state is JobState.SUCCEEDED
    assert cut_proxy.connections == 2


def test_nothing_is_left_open(cluster: Cluster, make_watcher: MakeWatcher, eventually: Any) -> None:
    jobs.submit(cluster, "true", job_id="job")
    watcher = make_watcher()

    def watch_once() -> int:
        waiting = Waiting(watcher, "job")
        waiting.to_the_end()
        waiting.subscription.close()
        eventually(lambda: not watcher_threads())
        return len(os.listdir("/proc/self/fd"))

    before = watch_once()
    assert [watch_once() for _ in range(3)] == [before] * 3


def test_a_process_has_one_watcher_for_a_connection(cluster: Cluster, gpu_cluster_conn: dict[str, Any]) -> None:
    watcher = watcher_of("gpu_cluster_default")
    assert watcher_of("gpu_cluster_default") is watcher
    assert watcher_of("another") is not watcher
    jobs.submit(cluster, "echo hello", job_id="job")
    assert Waiting(watcher, "job").to_the_end().state is JobState.SUCCEEDED
    assert watcher.name == cluster.settings.name


def test_a_process_that_watches_comes_to_its_end(
    cluster: Cluster, cluster_folder: Path, gpu_cluster_conn: dict[str, Any], eventually: Any
) -> None:
    jobs.submit(cluster, "sleep 60", job_id="job")
    program = """
import queue
from airflow_provider_gpu_cluster.triggers.watchers import watcher_of
events = queue.Queue()
watcher_of("gpu_cluster_default").subscribe("job", events.put, reader=None, poll_interval_s=1)
print(type(events.get()).__name__)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "JobStatus")
    assert "Traceback" not in ran.stderr
    eventually(lambda: not far_ends(cluster_folder))


# -- connections that break --------------------------------------------------------------------------------------


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little time pass between two tries."""
    monkeypatch.setattr(loop, "SHORTEST_PAUSE_S", 0.02)
    monkeypatch.setattr(loop, "LONGEST_PAUSE_S", 0.2)


PRINT = f"""{sys.executable} -u -c '
import time
for number in range(60):
    print(number, "x" * 2000)
    time.sleep(0.05)
'"""
PRINTED = "".join(f"{number} {'x' * 2000}\n" for number in range(60)).encode()


def test_jobs_print_and_end_while_the_connection_is_cut(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, quick_pauses: None
) -> None:
    watcher = make_watcher(cut_proxy.port)
    for number in range(4):
        jobs.submit(cluster, PRINT, job_id=f"job-{number}")
    cut_proxy.cut_after(nbytes=60_000, direction="down", times=8)
    waiting = [Waiting(watcher, f"job-{number}") for number in range(4)]
    for one in waiting:
        one.to_the_end()
        assert bytes(one.output) == PRINTED
        assert [event.state for event in [*one.seen, *one.rest()] if isinstance(event, JobStatus) and event.final]
    assert cut_proxy.connections > 3


def test_a_connection_that_breaks_as_something_is_to_be_sent(
    cluster: Cluster, make_watcher: MakeWatcher, monkeypatch: pytest.MonkeyPatch, quick_pauses: None
) -> None:
    change = channel.WatchChannel.change
    cuts: list[int] = []

    def change_and_cut(self: channel.WatchChannel, subscription: Subscription) -> None:
        change(self, subscription)
        if len(cuts) < 3:
            cuts.append(subscription.key)
            self._channel.get_transport().sock.shutdown(socket.SHUT_WR)

    monkeypatch.setattr(channel.WatchChannel, "change", change_and_cut)
    jobs.submit(cluster, PRINT, job_id="job")
    waiting = Waiting(make_watcher(), "job")
    assert waiting.to_the_end().state is JobState.SUCCEEDED
    assert bytes(waiting.output) == PRINTED
    assert len(cuts) == 3


def test_jobs_print_and_end_while_the_server_restarts(
    sshd: RealSshd, cluster: Cluster, make_watcher: MakeWatcher, quick_pauses: None, eventually: Any
) -> None:
    watcher = make_watcher()
    jobs.submit(cluster, PRINT, job_id="job")
    waiting = Waiting(watcher, "job")
    waiting.until(Output)
    sshd.stop()
    try:
        waiting.until(Outage)
    finally:
        sshd.start()
    assert waiting.to_the_end().state is JobState.SUCCEEDED
    assert bytes(waiting.output) == PRINTED


def test_a_cut_that_is_mended_at_once_is_no_outage(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, tmp_path: Path
) -> None:
    jobs.submit(cluster, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done", job_id="job")
    waiting = Waiting(make_watcher(cut_proxy.port), "job")
    waiting.until(JobStatus, lambda status: status.state is JobState.RUNNING)
    cut_proxy.cut_now()
    waiting.until(Place)
    (tmp_path / "go").touch()
    waiting.to_the_end()
    assert not [event for event in waiting.seen if isinstance(event, Outage)]
    assert cut_proxy.connections == 2


def test_a_cluster_out_of_reach_is_tried_again_and_again(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, quick_pauses: None
) -> None:
    cut_proxy.refusing = True
    jobs.submit(cluster, "echo hello", job_id="job")
    waiting = Waiting(make_watcher(cut_proxy.port), "job")
    for _ in range(3):
        assert type(waiting.until(Outage).error) is GpuClusterConnectionError
    cut_proxy.refusing = False
    assert waiting.to_the_end().state is JobState.SUCCEEDED
    assert bytes(waiting.output) == b"hello\n"


def test_a_newcomer_does_not_wait_for_the_next_try(
    make_watcher: MakeWatcher, cut_proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"SHORTEST_PAUSE_S": 3600.0, "LONGEST_PAUSE_S": 3600.0, "NEWCOMER_PAUSE_S": 0.1}.items():
        monkeypatch.setattr(loop, name, seconds)
    cut_proxy.refusing = True
    watcher = make_watcher(cut_proxy.port)
    first = Waiting(watcher, "job")
    first.until(Outage)
    assert first.rest() == []
    Waiting(watcher, "job").until(Outage)
    first.until(Outage)


@pytest.mark.parametrize("frozen", ["line", "far end"])
def test_a_channel_that_falls_silent_is_given_up(
    cluster: Cluster,
    cluster_folder: Path,
    make_watcher: MakeWatcher,
    cut_proxy: CutProxy,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Any,
    tmp_path: Path,
    frozen: str,
) -> None:
    jobs.submit(cluster, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done", job_id="job")
    waiting = Waiting(make_watcher(cut_proxy.port), "job")
    waiting.until(Place)
    jobs.wait(cluster, "job", JobState.RUNNING)
    (far_end,) = far_ends(cluster_folder)
    if frozen == "line":
        cut_proxy.freeze_now()
    else:
        os.kill(far_end, signal.SIGSTOP)
    (tmp_path / "go").touch()
    jobs.wait(cluster, "job")
    waiting.rest()
    assert cut_proxy.connections == 1
    # As if so much time had passed; the acknowledgement makes it look at the clock.
    monkeypatch.setattr(channel, "SILENCE_S", 0.2)
    waiting.subscription.ack(LogPosition(1, 0), {})
    eventually(lambda: cut_proxy.connections > 1)
    monkeypatch.setattr(channel, "SILENCE_S", 20.0)
    assert waiting.to_the_end().state is JobState.SUCCEEDED


def test_a_quiet_channel_is_not_given_up(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign of life every few seconds is enough."""
    monkeypatch.setattr(channel, "SILENCE_S", 7.0)
    jobs.submit(cluster, "sleep 9", job_id="job")
    waiting = Waiting(make_watcher(cut_proxy.port), "job")
    waiting.to_the_end()
    assert cut_proxy.connections == 1


# -- clusters that cannot be watched -----------------------------------------------------------------------------


def test_a_cluster_that_cannot_run_jobs_is_a_failure(make_watcher: MakeWatcher) -> None:
    watcher = make_watcher(python="/no/such/python")
    waiting = Waiting(watcher, "job")
    assert isinstance(waiting.until(Failure).error, GpuClusterSetupError)
    assert waiting.rest() == []
    assert isinstance(watcher.cancel("job", requested_by="me").exception(PATIENCE_S), GpuClusterSetupError)


def test_a_connection_that_does_not_exist_is_a_failure() -> None:
    waiting = Waiting(watcher_of("no_such_connection"), "job")
    assert isinstance(waiting.until(Failure).error, GpuClusterSetupError)


def test_airflow_that_cannot_be_asked_for_the_connection_any_more_is_an_outage(
    cluster: Cluster,
    cluster_settings: ClusterSettings,
    ssh_connect: Connect,
    cut_proxy: CutProxy,
    quick_pauses: None,
) -> None:
    down = threading.Event()

    def make() -> Cluster:
        if down.is_set():
            raise RuntimeError("the API server does not answer")
        return Cluster(cluster_settings, lambda: ssh_connect(cut_proxy.port))

    jobs.submit(cluster, "sleep 1", job_id="job")
    waiting = Waiting(Watcher("gpu", make), "job")
    waiting.until(JobStatus)
    down.set()
    cut_proxy.cut_now()
    assert "does not answer" in str(waiting.until(Outage).error)
    down.clear()
    assert waiting.to_the_end().state is JobState.SUCCEEDED


@pytest.mark.parametrize("script", [KILL_AT_ONCE, KILL_SOON, SAY_NOTHING], ids=["at once", "soon", "no reply"])
def test_a_cluster_that_ends_the_program_again_and_again_is_asked_in_intervals(
    cluster: Cluster,
    make_watcher: MakeWatcher,
    python_that: Callable[[str], str],
    quick_pauses: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str,
) -> None:
    caplog.set_level("INFO", logger=loop.__name__)
    monkeypatch.setattr(connection, "IDLE_TIMEOUT_S", 4.0)
    monkeypatch.setattr(loop, "REFUSALS", 2)
    jobs.submit(cluster, PRINT, job_id="job")
    waiting = Waiting(make_watcher(python=python_that(script)), "job")
    waiting.to_the_end()
    assert bytes(waiting.output) == PRINTED
    assert "jobs are polled at intervals" in caplog.text


def test_watching_is_tried_again_later(
    cluster: Cluster,
    cluster_folder: Path,
    make_watcher: MakeWatcher,
    python_that: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Any,
) -> None:
    monkeypatch.setattr(loop, "POLLING_S", 0.5)
    jobs.submit(cluster, "sleep 60", job_id="job")
    python = python_that(REFUSE)
    waiting = Waiting(make_watcher(python=python), "job")
    waiting.until(JobStatus)
    assert far_ends(cluster_folder) == []
    python_that("true")
    eventually(lambda: far_ends(cluster_folder))
    cluster.cancel(["job"], requested_by="me")
    waiting.to_the_end()


# -- cancelling --------------------------------------------------------------------------------------------------


@pytest.fixture
def cancel_calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the jobs of each call of ``Cluster.cancel``, as they come to be made."""
    calls: list[list[str]] = []
    cancel = Cluster.cancel

    def counted(self: Cluster, job_ids: list[str], **kwargs: Any) -> list[JobStatus]:
        calls.append(job_ids)
        return cancel(self, job_ids, **kwargs)

    monkeypatch.setattr(Cluster, "cancel", counted)
    return calls


def test_a_job_that_is_watched_is_cancelled(cluster: Cluster, watcher: Watcher) -> None:
    jobs.submit(cluster, "sleep 60", job_id="job")
    waiting = Waiting(watcher, "job")
    waiting.until(JobStatus, lambda status: status.state is JobState.RUNNING)
    assert watcher.cancel("job", requested_by="somebody").result(PATIENCE_S).job_id == "job"
    end = waiting.to_the_end()
    assert end.state is JobState.CANCELLED
    assert "somebody" in end.message


def test_cancellations_that_come_together_are_one_call(
    cluster: Cluster, make_watcher: MakeWatcher, cancel_calls: list[list[str]]
) -> None:
    names = [f"job-{number}" for number in range(5)]
    for name in names:
        jobs.submit(cluster, "sleep 60", job_id=name, gpus=0)
    watcher = make_watcher()
    futures = [watcher.cancel(name, requested_by="me") for name in names]
    assert [future.result(PATIENCE_S).job_id for future in futures] == names
    assert cancel_calls == [names]
    assert {jobs.wait(cluster, name).state for name in names} == {JobState.CANCELLED}


def test_one_job_that_cannot_be_cancelled_keeps_no_other_from_it(cluster: Cluster, make_watcher: MakeWatcher) -> None:
    jobs.submit(cluster, "sleep 60", job_id="job")
    watcher = make_watcher()
    bad, good = (watcher.cancel(name, requested_by="me") for name in ("../etc", "job"))
    assert isinstance(bad.exception(PATIENCE_S), InvalidJobError)
    assert good.result(PATIENCE_S).job_id == "job"
    assert jobs.wait(cluster, "job").state is JobState.CANCELLED


def test_a_job_out_of_reach_is_not_cancelled_later(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, tmp_path: Path, eventually: Any
) -> None:
    """Whoever asked was told that it did not work."""
    cut_proxy.refusing = True
    jobs.submit(cluster, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done", job_id="job")
    watcher = make_watcher(cut_proxy.port)
    with pytest.raises(GpuClusterError):
        watcher.cancel("job", requested_by="me").result(PATIENCE_S)
    eventually(lambda: not watcher_threads())
    cut_proxy.refusing = False
    waiting = Waiting(watcher, "job")
    waiting.until(JobStatus)
    (tmp_path / "go").touch()
    assert waiting.to_the_end().state is JobState.SUCCEEDED


def test_a_cancellation_survives_a_cut(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.submit(cluster, "sleep 60", job_id="job")
    watcher = make_watcher(cut_proxy.port)
    waiting = Waiting(watcher, "job")
    waiting.until(JobStatus, lambda status: status.state is JobState.RUNNING)
    cut_proxy.cut_after(nbytes=1)
    assert watcher.cancel("job", requested_by="me").result(PATIENCE_S).job_id == "job"
    assert waiting.to_the_end().state is JobState.CANCELLED


# -- launching ---------------------------------------------------------------------------------------------------


def test_a_job_is_launched_and_watched_over_one_connection(cluster: Cluster, watcher: Watcher) -> None:
    submission = watcher.launch(jobs.request("echo hello", job_id="job")).result(PATIENCE_S)
    assert submission.created
    assert submission.handle.gpu_cluster_conn_id == cluster.settings.conn_id
    waiting = Waiting(watcher, "job")
    assert waiting.to_the_end().state is JobState.SUCCEEDED
    assert bytes(waiting.output) == b"hello\n"
    again = watcher.launch(jobs.request("echo hello", job_id="job")).result(PATIENCE_S)
    assert (again.created, again.status.attempt) == (False, 1)


@pytest.mark.parametrize("count", [10, pytest.param(40, marks=pytest.mark.long)])
def test_many_are_launched_over_one_connection(
    count: int, cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy
) -> None:
    watcher = make_watcher(cut_proxy.port)
    names = [f"launched-{number}" for number in range(count)]
    futures = [watcher.launch(jobs.request("true", job_id=name, gpus=0)) for name in names]
    assert all(future.result(PATIENCE_S).created for future in futures)
    assert cut_proxy.connections == 1
    assert {jobs.wait(cluster, name).state for name in names} == {JobState.SUCCEEDED}


def test_what_cannot_be_launched_keeps_no_other_from_it(cluster: Cluster, watcher: Watcher) -> None:
    bad, good = (watcher.launch(jobs.request("true", job_id=f"launched-{gpus}", gpus=gpus)) for gpus in (99, 1))
    assert isinstance(bad.exception(PATIENCE_S), LaunchError)
    assert good.result(PATIENCE_S).created


def test_a_launch_survives_a_cut_and_comes_about_once(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, tmp_path: Path
) -> None:
    watcher = make_watcher(cut_proxy.port)
    blocker = Waiting(watcher, jobs.submit(cluster, "sleep 60", gpus=0).handle.job_id)
    blocker.until(JobStatus, lambda status: status.state is JobState.RUNNING)
    for number, after in enumerate((1, 400, 900, 1500, 2500)):
        cut_proxy.cut_after(nbytes=after)
        request = jobs.request(f"echo run >> {tmp_path}/runs-{number}", job_id=f"launched-{number}")
        submission = watcher.launch(request).result(PATIENCE_S)
        assert submission.status.attempt == 1
        assert jobs.wait(cluster, f"launched-{number}").state is JobState.SUCCEEDED
        assert (tmp_path / f"runs-{number}").read_text() == "run\n"


def test_a_launch_out_of_reach_does_not_come_about_later(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, eventually: Any
) -> None:
    """Whoever asked was told that it did not work."""
    cut_proxy.refusing = True
    watcher = make_watcher(cut_proxy.port)
    with pytest.raises(GpuClusterConnectionError):
        watcher.launch(jobs.request("true", job_id="job")).result(PATIENCE_S)
    cut_proxy.refusing = False
    eventually(lambda: not watcher_threads())
    assert cluster.statuses(["job"])[0].attempt == 0


def test_a_launch_that_was_not_asked_for_yet_can_be_taken_back(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, eventually: Any
) -> None:
    cut_proxy.refusing = True
    watcher = make_watcher(cut_proxy.port)
    waiting = Waiting(watcher, "other")
    waiting.until(Outage)
    taken_back = watcher.launch(jobs.request("true", job_id="job"))
    assert taken_back.cancel()
    cut_proxy.refusing = False
    assert watcher.launch(jobs.request("true", job_id="second")).result(PATIENCE_S).created
    assert cluster.statuses(["job"])[0].attempt == 0


def test_a_cluster_that_cannot_be_used_is_said_to_who_launches(make_watcher: MakeWatcher) -> None:
    watcher = make_watcher(python="/no/such/python")
    assert isinstance(watcher.launch(jobs.request("true", job_id="job")).exception(PATIENCE_S), GpuClusterSetupError)


# -- looking on, and asking ----------------------------------------------------------------------------------------


class Looking:
    """Looks on at a job."""

    def __init__(self, watcher: Watcher, job_id: str, *tails: str) -> None:
        self.seen: list[WatchEvent] = []
        self._events: queue.Queue[WatchEvent] = queue.Queue()
        self.following = watcher.follow(job_id, self._events.put, tails=frozenset(tails), poll_interval_s=0.2)

    def until(self, kind: type[Event], check: Callable[[Event], bool] = lambda event: True) -> Event:
        """Return the next event of a kind for which something is true."""
        while True:
            event = self._events.get(timeout=PATIENCE_S)
            self.seen.append(event)
            if isinstance(event, kind) and check(event):
                return event

    def until_printed(self, line: str) -> None:
        self.until(Printed, lambda event: line in event.news["lines"])

    @property
    def lines(self) -> list[str]:
        """All lines of the log that were told."""
        return [line for event in self.seen if isinstance(event, Printed) for line in event.news["lines"]]


def steps(folder: Path, count: int) -> str:
    """Return a command that prints a line and reports a step when a file appears, so many times."""
    wait = f"while [ ! -e {folder}/go-$step ]; do sleep 0.05; done"
    say = """echo line-$step; echo "{\\"step\\": $step}" >> "$PROGRESS_FILE\""""
    return f"for step in $(seq {count}); do {wait}; {say}; done"


def test_who_looks_on_sees_what_is_new_and_nobody_counts_as_asking(
    cluster: Cluster, cluster_settings: ClusterSettings, watcher: Watcher, tmp_path: Path
) -> None:
    jobs.submit(cluster, steps(tmp_path, 3), job_id="job", gpus=1)
    (tmp_path / "go-1").touch()
    Waiting(watcher, "job").until(JobStatus, lambda status: bool(status.progress))
    own = Path(cluster_settings.root_dir, "job/.job")
    cursors = list(own.glob("cursors/*"))
    looking = Looking(watcher, "job", "log", "progress")
    assert looking.until(JobStatus).state is JobState.RUNNING
    looking.until(Printed)
    (tmp_path / "go-2").touch()
    looking.until_printed("line-2")
    looking.until(Points, lambda event: bool(event.news["points"]))
    # What nobody wants is not sent; when somebody does again, it begins there.
    looking.following.want(frozenset({"progress"}))
    (tmp_path / "go-3").touch()
    looking.until(JobStatus, lambda status: status.final)
    points = [one["values"] for event in looking.seen if isinstance(event, Points) for one in event.news["points"]]
    assert points in ([{"step": 2}], [{"step": 2}, {"step": 3}])
    assert looking.lines == ["line-2"]
    assert list(own.glob("cursors/*")) == cursors


def test_looking_on_goes_on_after_an_outage_without_a_gap(
    cluster: Cluster, make_watcher: MakeWatcher, cut_proxy: CutProxy, tmp_path: Path, quick_pauses: None
) -> None:
    jobs.submit(cluster, steps(tmp_path, 3), job_id="job", gpus=1)
    looking = Looking(make_watcher(cut_proxy.port), "job", "log", "progress")
    looking.until(Printed)
    (tmp_path / "go-1").touch()
    looking.until_printed("line-1")
    cut_proxy.refusing = True
    cut_proxy.cut_now()
    looking.until(Outage)
    (tmp_path / "go-2").touch()
    cut_proxy.refusing = False
    looking.until_printed("line-2")
    (tmp_path / "go-3").touch()
    looking.until_printed("line-3")
    assert looking.lines == ["line-1", "line-2", "line-3"]


def test_a_verb_that_reads_is_called(cluster: Cluster, watcher: Watcher) -> None:
    capacities = [watcher.call("capacity", {}) for _ in range(5)]
    assert [len(one.result(PATIENCE_S)["gpus"]) for one in capacities] == [4] * 5
    with pytest.raises(GpuClusterError, match="no-such-job"):
        watcher.call("audit", {"job_id": "../no-such-job"}).result(PATIENCE_S)
