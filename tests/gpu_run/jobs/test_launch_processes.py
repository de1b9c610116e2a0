"""Jobs that are launched by the process that tells what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.jobs.launch_processes import AT_ONCE
from tests.gpu_run.host import Host
from tests.gpu_run.watch.client import Client

# What a test changes in the process.
CHANGE = """
import os, time
from airflow_provider_gpu_cluster.gpu_run.jobs import launch_processes
outcome = launch_processes.LaunchProcesses._outcome
def changed(self, request):
    {change}
    return outcome(self, request)
launch_processes.LaunchProcesses._outcome = changed
"""
KILLED = CHANGE.format(change="os.kill(os.getpid(), 9)")


def waiting_for(gate: Path) -> str:
    """Return a change that keeps launches waiting until something is at that path."""
    return CHANGE.format(change=f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)")


def wanted(host: Host, command: str, **more: Any) -> dict[str, Any]:
    """Return a request as a client sends it, which knows neither the program nor the settings."""
    own = ("settings", "program", "umask")
    request = host.request(command, **more)
    return {"inputs": [], **{name: value for name, value in request.items() if name not in (*own, "inputs")}}


def test_a_launch_is_a_submit(host: Host, watch: Callable[..., Client]) -> None:
    client = watch()
    client.do("launch", key=1, request=wanted(host, "echo $NAME", job_id="job", env={"NAME": "hello"}))
    launched = client.until("launched")
    assert launched["created"]
    assert launched["handle"]["job_dir"] == host.job("job").path
    assert launched["status"]["state"] in ("QUEUED", "RUNNING")
    client.subscribe("job", key=2, reader="me")
    assert client.read_output(6, key=2) == b"hello\n"
    assert host.wait("job")["state"] == "SUCCEEDED"
    record = host.attempt("job").request()
    assert (record["settings"], record["program"]) == (host.settings, host.program)


def test_asked_again_it_is_the_same_attempt(host: Host, watch: Callable[..., Client]) -> None:
    request = wanted(host, 'echo run >> "$JOB_DIR/runs"', job_id="job")
    for key, client in enumerate((watch(), watch())):
        client.do("launch", key=key, request=request)
        client.do("launch", key=key + 10, request=request)
        replies = [client.until("launched", key=key + more) for more in (0, 10)]
        assert {reply["status"]["attempt"] for reply in replies} == {1}
        assert sum(reply["created"] for reply in replies) == (key == 0)
    host.wait("job")
    assert Path(host.job("job").at("runs")).read_text() == "run\n"


def test_what_cannot_be_launched_is_refused_and_keeps_nobody_from_theirs(
    host: Host, watch: Callable[..., Client], tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("x")
    client = watch()
    files = [{"type": "upload", "kind": "data", "name": "x", "files": [], "folders": [], "links": []}]
    client.do("launch", key=1, request=wanted(host, "true", gpus=5))
    client.do("launch", key=2, request={"job_id": "../x"})
    client.do("launch", key=3, request={**wanted(host, "true"), "job_id": 7})
    client.do("launch", key=4, request={**wanted(host, "true"), "inputs": files})
    client.do("launch", key=5, request=wanted(host, "true", job_id="job"))
    refusals = [client.until("refused", key=key) for key in (1, 2, 3, 4)]
    assert refusals[0]["code"] == protocol.NOT_ENOUGH_GPUS
    assert "5" in refusals[0]["message"]
    assert client.until("launched", key=5)["created"]


def test_news_do_not_wait_for_a_launch(host: Host, watch: Callable[..., Client], tmp_path: Path) -> None:
    client = watch(waiting_for(tmp_path / "gate"))
    client.do("launch", key=1, request=wanted(host, "true"))
    client.subscribe(host.submit("sleep 0.5"), key=2)
    assert client.until("status", key=2, state="SUCCEEDED")
    assert not [event for event in client.events if event["event"] == "launched"]
    (tmp_path / "gate").touch()
    assert client.until("launched")["created"]


def test_many_launches_take_turns(host: Host, watch: Callable[..., Client], tmp_path: Path) -> None:
    client = watch(waiting_for(tmp_path / "gate"))
    names = [f"job-{key}" for key in range(3 * AT_ONCE)]
    for key, name in enumerate(names):
        client.do("launch", key=key, request=wanted(host, "true", job_id=name))
    client.settle()
    assert len(copies(client)) == AT_ONCE
    (tmp_path / "gate").touch()
    assert all(client.until("launched", key=key)["created"] for key in range(len(names)))
    host.wait(*names, state="SUCCEEDED")


def test_a_launch_whose_process_is_killed_is_refused(host: Host, watch: Callable[..., Client]) -> None:
    client = watch(KILLED)
    client.do("launch", key=1, request=wanted(host, "true"))
    refusal = client.until("refused")
    assert refusal["code"] == protocol.INTERNAL
    assert "try again" in refusal["message"]


def test_a_launch_outlives_its_client(
    host: Host, watch: Callable[..., Client], tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    client = watch(waiting_for(tmp_path / "gate"))
    client.do("launch", key=1, request=wanted(host, "true", job_id="job"))
    client.settle()
    assert copies(client)
    # A launch that goes on does not keep the channel open. (Standard error stays, for what goes wrong.)
    client.stdin.close()
    assert client.stdout.read() == b""
    (tmp_path / "gate").touch()
    client.end()
    eventually(lambda: host.job("job").attempts())
    assert host.wait("job")["state"] == "SUCCEEDED"


def copies(client: Client) -> list[int]:
    """Return the processes in which launches are carried out."""
    with open(f"/proc/{client.process.pid}/task/{client.process.pid}/children", encoding="ascii") as file:
        pids = [int(word) for word in file.read().split()]
    return [pid for pid in pids if _is_copy(pid, client)]


def _is_copy(pid: int, client: Client) -> bool:
    try:
        words, own = (Path(f"/proc/{number}/cmdline").read_bytes() for number in (pid, client.process.pid))
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return words == own and state != "Z"
