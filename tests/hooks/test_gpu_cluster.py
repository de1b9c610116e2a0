"""GpuClusterHook: from a connection to a cluster, on a real SSH server."""

from __future__ import annotations

import base64
import io
import json
import socket
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.exceptions import (
    GpuClusterAuthenticationError,
    GpuClusterConnectionError,
    GpuClusterHostKeyError,
    GpuClusterSetupError,
    InvalidJobError,
    JobConflictError,
    LaunchError,
)
from airflow_provider_gpu_cluster.hooks.gpu_cluster import GpuClusterHook
from airflow_provider_gpu_cluster.jobs.status import JobState

Change = Callable[..., None]


@pytest.fixture
def change(gpu_cluster_conn: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Change:
    """Return a function that changes fields of the connection; what is no column goes to its extra."""
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))  # no keys, no known_hosts
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)

    def apply(**fields: Any) -> None:
        for name, value in fields.items():
            column = name in ("host", "port", "login", "password")
            (gpu_cluster_conn if column else gpu_cluster_conn["extra"])[name] = value
        monkeypatch.setenv("AIRFLOW_CONN_GPU_CLUSTER_DEFAULT", json.dumps(gpu_cluster_conn))

    return apply


def encrypted(key: str, passphrase: str) -> str:
    from cryptography.hazmat.primitives import serialization

    private = serialization.load_ssh_private_key(key.encode(), None)
    form = serialization.PrivateFormat.OpenSSH
    encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return private.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def other_key() -> tuple[str, str]:
    """Return a private key and, as a host key, its public half."""
    key = paramiko.ECDSAKey.generate()
    text = io.StringIO()
    key.write_private_key(text)
    return text.getvalue(), f"{key.get_name()} {key.get_base64()}"


def test_connection_says_what_it_found(gpu_cluster_conn: dict[str, Any]) -> None:
    works, message = GpuClusterHook().test_connection()
    assert works, message
    for word in ("host", "4 of 4", "free", "Python 3.", "GB free in", gpu_cluster_conn["extra"]["root_dir"]):
        assert word in message


def test_connection_says_what_is_wrong(change: Change) -> None:
    change(port=closed_port())
    works, message = GpuClusterHook().test_connection()
    assert not works
    assert "nothing accepts connections on port" in message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"virtual_gpus": "four"}, "field virtual_gpus is 'four'; it must be a whole number"),
        ({"virtual_gpus": 0}, "field virtual_gpus is 0"),
        ({"virtual_gpus": True}, "field virtual_gpus"),
        ({"retention": "2 weeks"}, "field retention is '2 weeks'; it must be a duration such as 14d, 36h, 90m"),
        ({"retention": True}, "field retention is True"),
        ({"retention": -5}, "field retention is -5"),
        ({"transfer": "scp"}, "field transfer is 'scp'; it must be one of: stream, sftp"),
        ({"engine": "kubernetes"}, "field engine is 'kubernetes'; it must be one of: host, slurm, command"),
        (
            {"engine": "command"},
            "field launch_command is None; it must be the site's command for jobs, such as 'gpu-run",
        ),
        ({"launch_command": "x {script}"}, "field launch_command is 'x {script}'; it must be empty, as engine is host"),
        ({"sbatch_options": "--output=x"}, "field sbatch_options is '--output=x'; it must be options of sbatch"),
        ({"slurm_interval": 0}, "field slurm_interval is 0; it must be a number of seconds"),
        ({"slurm_interval": "often"}, "field slurm_interval is 'often'"),
        ({"root_dir": "a\nb"}, "field root_dir"),
        ({"root_dir": 7}, "field root_dir"),
        ({"root_dir": "$(touch x)/jobs"}, "it must be a path whose $ begin variables such as $SCRATCH"),
        ({"lease_dir": "$SCRATCH/leases"}, "field lease_dir"),
        ({"host": ""}, "field host"),
        ({"host_key": "ssh-ed25519 nonsense"}, "field host_key cannot be used"),
        ({"host_key": "[127.0.0.1]:22 ssh-ed25519 AAAA"}, "field host_key cannot be used"),
        ({"key_file": "/x"}, "both private_key and key_file"),
        ({"no_host_key_check": True}, "says not to check it"),
    ],
)
def test_bad_field_is_named(change: Change, fields: dict[str, Any], message: str) -> None:
    change(**fields)
    with pytest.raises(GpuClusterSetupError) as raised:
        GpuClusterHook().capacity()
    assert message in str(raised.value)
    assert "gpu_cluster_default" in str(raised.value)


def test_unknown_host(change: Change) -> None:
    change(host="no-such-host.invalid")
    with pytest.raises(GpuClusterConnectionError, match=r"host name no-such-host\.invalid is not known"):
        GpuClusterHook().connect()


def test_refused_port(change: Change) -> None:
    change(port=closed_port())
    with pytest.raises(GpuClusterConnectionError, match="nothing accepts connections on port"):
        GpuClusterHook().connect()


def test_no_answer(change: Change) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        blockers = []
        for _ in range(3):  # fill the queue of connections, so that the next one gets no answer
            blockers.append(socket.socket())
            blockers[-1].setblocking(False)
            blockers[-1].connect_ex(silent.getsockname())
        change(port=silent.getsockname()[1], conn_timeout=1)
        with pytest.raises(GpuClusterConnectionError, match="no answer within 1 s"):
            GpuClusterHook().connect()
        for blocker in blockers:
            blocker.close()


def test_wrong_key(change: Change) -> None:
    change(private_key=other_key()[0])
    with pytest.raises(GpuClusterAuthenticationError, match="refused the user"):
        GpuClusterHook().connect()


def test_wrong_key_is_not_tried_again(change: Change) -> None:
    change(private_key=other_key()[0])
    with pytest.raises(GpuClusterAuthenticationError):
        GpuClusterHook().capacity()


def test_key_that_is_none(change: Change) -> None:
    change(private_key="-----BEGIN\nnonsense\n-----END")
    with pytest.raises(GpuClusterAuthenticationError, match="field private_key cannot be read"):
        GpuClusterHook().connect()


def lets_in() -> bool:
    """Return whether the server lets the hook in."""
    with GpuClusterHook().connect() as client:
        transport = client.get_transport()
        return transport is not None and transport.is_authenticated()


def test_key_file(change: Change, gpu_cluster_conn: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "key").write_text(gpu_cluster_conn["extra"]["private_key"])
    change(private_key=None, key_file=str(tmp_path / "key"))
    assert lets_in()


def test_encrypted_key_file_in_the_home(
    change: Change, gpu_cluster_conn: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text(encrypted(gpu_cluster_conn["extra"]["private_key"], "open sesame"))
    change(private_key=None, key_file="~/key", private_key_passphrase="open sesame")
    assert lets_in()


def test_key_file_that_is_not_there(change: Change, tmp_path: Path) -> None:
    change(private_key=None, key_file=str(tmp_path / "missing"))
    with pytest.raises(GpuClusterAuthenticationError, match=r"missing cannot be read on .* No such file"):
        GpuClusterHook().connect()


def test_encrypted_key(change: Change, gpu_cluster_conn: dict[str, Any]) -> None:
    change(private_key=encrypted(gpu_cluster_conn["extra"]["private_key"], "open sesame"))
    with pytest.raises(GpuClusterAuthenticationError, match="is encrypted"):
        GpuClusterHook().connect()
    change(private_key_passphrase="wrong")
    with pytest.raises(GpuClusterAuthenticationError, match="private_key_passphrase"):
        GpuClusterHook().connect()
    change(private_key_passphrase="open sesame")
    assert lets_in()


def test_unknown_host_key(change: Change, sshd: Any) -> None:
    change(host_key=None)
    with pytest.raises(GpuClusterHostKeyError, match=f"ssh-keyscan -p {sshd.port} {sshd.host}.*host_key"):
        GpuClusterHook().connect()


def test_changed_host_key(change: Change, sshd: Any) -> None:
    kind = sshd.host_key.split()[0]
    changed = {
        "ssh-ed25519": "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode()
    }.get(kind, other_key()[1])
    change(host_key=changed)
    with pytest.raises(GpuClusterHostKeyError, match="has changed"):
        GpuClusterHook().connect()


def test_check_can_be_turned_off(change: Change) -> None:
    change(host_key=None, no_host_key_check=True)
    assert lets_in()


def test_compression_is_off_unless_asked_for(change: Change) -> None:
    for value, compressed in ((None, "none"), (True, "zlib")):
        change(compress=value)
        client = GpuClusterHook().connect()
        transport = client.get_transport()
        assert transport is not None
        assert str(transport.local_compression).startswith(compressed)
        client.close()


def test_every_call_opens_a_connection_of_its_own(gpu_cluster_conn: dict[str, Any]) -> None:
    hook = GpuClusterHook()
    first, second = hook.connect(), hook.connect()
    assert first is not second
    first.close()
    second.close()


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_job_from_plain_values(tmp_path: Path, eventually: Any) -> None:
    now = datetime.now(timezone.utc)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(
        "import os; os.write(2, b'a warning\\n'); os.write(1, f'seed {os.environ[\"SEED\"]}\\n'.encode())\n"
    )
    with GpuClusterHook() as hook:
        handle = hook.submit(
            job_id="mine", code="code", entry_script="train.py", gpus=1, env={"SEED": 7}, base_dir=tmp_path
        )
        assert handle["job_id"] == "mine"
        assert hook.submit(job_id="mine", command="false") == handle
        assert eventually(lambda: hook.status(handle).final)
        assert hook.status("mine").state is JobState.SUCCEEDED
        # Both streams; they come over two pipes.
        assert sorted(hook.logs(handle).splitlines()) == ["a warning", "seed 7"]
        assert hook.logs(handle, tail_bytes=10).splitlines()[-1] in ("a warning", "seed 7")
        assert hook.status(handle, tail_bytes=100).log_tail == "a warning\n"
        assert hook.cancel(handle).state is JobState.SUCCEEDED
        result = hook.collect(handle, tmp_path / "home", include="SUCCESS")
        assert [file["path"] for file in result["files"]] == ["SUCCESS"]
        assert eventually(lambda: hook.capacity()["free_gpus"] == 4)
        for since in (None, "1h", timedelta(hours=1), now, now.date(), now.isoformat()):
            (row,) = hook.usage(since, by="month", until=timedelta(days=-1))
            assert (row["key"], row["jobs"], row["attempts"], row["failed"]) == (f"{now:%Y-%m}", 1, 1, 0), since
        assert row["received_bytes"] == (tmp_path / "code" / "train.py").stat().st_size
        assert eventually(lambda: hook.usage()[0]["sent_bytes"]) == sum(file["size"] for file in result["files"])
        assert 0 < row["gpu_hours"] < 0.1
        assert hook.usage(until=now) == []
        for wrong in ({"since": "soon"}, {"by": "colour"}):
            with pytest.raises(ValueError, match=r"is not a moment|must be one of user, dag"):
                hook.usage(**wrong)


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_staged_job_is_launched_by_its_handle(tmp_path: Path, eventually: Any) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print(1)\n")
    with GpuClusterHook() as hook:
        staged = hook.stage(job_id="staged", code="code", base_dir=tmp_path)
        assert staged["submitted_at"] is None
        handle = hook.submit(job=staged, entry_script="train.py")
        assert handle["job_dir"] == staged["job_dir"]
        assert eventually(lambda: hook.status(handle).state is JobState.SUCCEEDED)


@pytest.mark.usefixtures("gpu_cluster_conn")
def test_job_outside_of_a_task_needs_a_name() -> None:
    with pytest.raises(InvalidJobError, match="job_id="):
        GpuClusterHook().submit(command="true")


@pytest.mark.parametrize(
    ("written", "transfer"), [(None, "stream"), ("", "stream"), ("stream", "stream"), ("sftp", "sftp")]
)
def test_transfer(change: Change, written: object, transfer: str) -> None:
    change(transfer=written)
    assert GpuClusterHook().settings.transfer == transfer


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("14d", 1209600.0), ("36h", 129600.0), (3600, 3600.0), ("3600", 3600.0), ("", None), (None, None)],
)
def test_retention(change: Change, written: object, seconds: float | None) -> None:
    change(retention=written)
    assert GpuClusterHook().settings.retention_s == seconds


def finished(hook: GpuClusterHook, root: Path, job_id: str, eventually: Any) -> Path:
    """Run a job, make its records say that it ended long ago, and return its directory."""
    hook.submit(job_id=job_id, command="true")
    eventually(lambda: hook.status(job_id).final)
    record = root / job_id / ".job/attempts/1/exit.json"
    value = json.loads(record.read_text())
    record.write_text(json.dumps({**value, "ended_at": "2020-01-01T00:00:00+00:00"}))
    # Its supervisor is there for a moment after the end it has recorded.
    eventually(lambda: not Path(f"/proc/{value['pid']}").exists())
    return root / job_id


def test_old_jobs_are_cleared_away(gpu_cluster_conn: dict[str, Any], change: Change, eventually: Any) -> None:
    root = Path(gpu_cluster_conn["extra"]["root_dir"])
    with GpuClusterHook() as hook:
        job = finished(hook, root, "old", eventually)
        with pytest.raises(GpuClusterSetupError, match="set 'retention' in the connection"):
            hook.collect_garbage()
        with pytest.raises(ValueError, match="is not a duration"):
            hook.collect_garbage("soon")
        assert hook.collect_garbage("5000d")["jobs"] == []
        report = hook.collect_garbage(timedelta(days=14), dry_run=True)
        assert (report["jobs"], report["dry_run"], report["older_than_s"]) == (["old"], True, 1209600.0)
        assert job.exists()
    change(retention="36h")
    with GpuClusterHook() as hook:
        report = hook.collect_garbage()
        assert (report["jobs"], report["failed"], report["older_than_s"]) == (["old"], [], 129600.0)
        assert not job.exists()


def test_a_launch_clears_old_jobs_away(gpu_cluster_conn: dict[str, Any], change: Change, eventually: Any) -> None:
    root = Path(gpu_cluster_conn["extra"]["root_dir"])
    with GpuClusterHook() as hook:
        job = finished(hook, root, "old", eventually)
    change(retention="14d")
    with GpuClusterHook() as hook:
        hook.submit(job_id="new", command="true")
        eventually(lambda: not job.exists())
        assert (root / "new").exists()
        # Not again within the hour.
        other = finished(hook, root, "other", eventually)
        hook.submit(job_id="newer", command="true")
        eventually(lambda: hook.status("newer").final)
        assert other.exists()


def test_a_running_job_is_interrupted(gpu_cluster_conn: dict[str, Any], eventually: Callable[..., Any]) -> None:
    command = "trap 'echo warned' USR1; echo ready; while :; do sleep 0.05 || :; done"
    elements = [{"N": "1"}, {"N": "2"}]
    with GpuClusterHook() as hook:
        handle = hook.submit(command=command, job_id="noon", grace=0.5, warn_before=timedelta(hours=1), recover=False)
        array = hook.submit(command=command, job_id="both", array=elements, recover=False)
        eventually(lambda: hook.logs(handle) == "ready\n")
        assert hook.interrupt(handle, as_="checkpoint").startswith("USR1 was sent to bash (")
        eventually(lambda: hook.logs(handle) == "ready\nwarned\n")
        assert "; TERM follows in " in hook.interrupt("noon", as_="preempted", requested_by="ann")
        with pytest.raises(InvalidJobError, match="both is an array of 2 jobs; name one of them, such as both_0"):
            hook.interrupt(array, as_="preempted")
        with pytest.raises(InvalidJobError, match="valid is 'preempted', 'time_limit' or 'checkpoint'"):
            hook.interrupt(handle, as_="killed")
        with pytest.raises(LaunchError, match="nothing is no job under"):
            hook.interrupt("nothing", as_="preempted")
        eventually(lambda: hook.status(handle).final)
        status = hook.status(handle)
        assert (status.reason, status.message) == ("preempted", "its preemption was rehearsed by ann")
        with pytest.raises(JobConflictError, match="job noon does not run: it has ended, as FAILED"):
            hook.interrupt(handle, as_="preempted")
        hook.cancel(array)
