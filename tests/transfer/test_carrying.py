"""A job's files on their way from one cluster to another: whole, and only what is lacking there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.connection.settings import ClusterSettings
from airflow_provider_gpu_cluster.exceptions import CannotCarryError, ChecksumError, JobConflictError, NoSpaceError
from airflow_provider_gpu_cluster.gpu_run.store.continuing import continuation_of
from airflow_provider_gpu_cluster.gpu_run.store.directories import Root
from airflow_provider_gpu_cluster.jobs.status import JobState
from airflow_provider_gpu_cluster.sources import parse_sources
from airflow_provider_gpu_cluster.transfer import file_stream
from tests.harness import jobs
from tests.harness.leftovers import kill_everything_under
from tests.harness.small_disk import small_disk
from tests.harness.unpacked_program import provide_unpacked
from tests.servers.proxy import CutProxy

Connect = Callable[..., paramiko.SSHClient]


@pytest.fixture
def other_settings(cluster_settings: ClusterSettings, tmp_path: Path) -> Iterator[ClusterSettings]:
    """Return the settings of a second cluster."""
    folder = tmp_path / "other"
    provide_unpacked(folder / "ml-jobs")
    try:
        yield replace(
            cluster_settings, conn_id="gpu02", root_dir=str(folder / "ml-jobs"), lease_dir=str(folder / "leases")
        )
    finally:
        kill_everything_under(folder)


@pytest.fixture
def other(other_settings: ClusterSettings, ssh_connect: Connect) -> Iterator[Cluster]:
    with Cluster(other_settings, ssh_connect) as cluster:
        yield cluster


@pytest.fixture
def ended(cluster: Cluster) -> Path:
    """Return the outputs of a job ``job`` that has ended badly on the first cluster."""
    jobs.submit(cluster, "exit 3", job_id="job", gpus=1)
    jobs.wait(cluster, "job", JobState.FAILED)
    return ended_of(cluster) / "outputs"


def carry(cluster: Cluster, other: Cluster, **options: Any) -> Any:
    return cluster.carry_to(other, "job", record=jobs.record(), **options)


def tree(folder: Path) -> dict[str, Any]:
    """Return everything in a folder but the markers: contents, and where links lead."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = (path.stat().st_mode & 0o100, path.read_bytes())
        elif path.is_dir():
            found[name] = None
    for marker in ("SUCCESS", "FAILED", "status.txt"):
        found.pop(marker, None)
    return found


def there(other: Cluster) -> Path:
    return Path(other.settings.root_dir) / "job" / "outputs"


def write_many(outputs: Path) -> None:
    (outputs / "checkpoints" / "empty").mkdir(parents=True, exist_ok=True)
    for name in ("a b", "new\nline", "ünï…", "-rf", "'\"$(id)`", os.fsdecode(b"\xff\xfe"), "n" * 255, "..x"):
        (outputs / name).write_bytes(os.fsencode(name))
    (outputs / "program").touch(0o755)
    (outputs / "nothing").touch()
    (outputs / "checkpoints" / "step_1.pt").write_bytes(os.urandom(3_000_000))
    (outputs / "checkpoints" / "exactly.pt").write_bytes(os.urandom(1 << 20))
    (outputs / "checkpoints" / "latest").symlink_to("step_1.pt")
    (outputs / "absolute").symlink_to(outputs / "checkpoints")
    (outputs / "folder").symlink_to("checkpoints")
    (outputs / "dangling").symlink_to("checkpoints/step_9.pt")
    for number in range(300):
        (outputs / "checkpoints" / f"{number}.txt").write_text(str(number))
    os.mkfifo(outputs / "pipe")
    with open(outputs / "sparse.bin", "wb") as file:
        file.truncate(200 << 20)
        file.seek(100 << 20)
        file.write(b"middle")


def test_everything_is_brought_along_and_stays_where_it_was(cluster: Cluster, other: Cluster, ended: Path) -> None:
    write_many(ended)
    # By that programs find the last checkpoint.
    os.utime(ended / "checkpoints" / "step_1.pt", ns=(10**18, 10**18 + 7))
    before = tree(ended)
    carried = carry(cluster, other)
    assert (there(other) / "checkpoints" / "step_1.pt").stat().st_mtime_ns == 10**18 + 7
    expected = {**before, "absolute": "-> checkpoints"}
    assert tree(there(other)) == expected
    assert tree(ended) == before
    assert (ended / "FAILED").exists()
    assert not (there(other) / "FAILED").exists()
    assert (there(other) / "sparse.bin").stat().st_blocks * 512 < 10 << 20
    assert carried.files == 300 + 8 + 2 + 2 + 1
    again = carry(cluster, other)
    assert (again.files, again.sent_bytes) == (carried.files, 0)


@pytest.mark.long
def test_only_what_is_lacking_is_sent(cluster: Cluster, other: Cluster, ended: Path) -> None:
    (ended / "one.pt").write_bytes(one := os.urandom(2_000_000))
    assert carry(cluster, other).sent_bytes == len(one)
    (ended / "two.pt").write_bytes(two := os.urandom(1_500_000))
    assert carry(cluster, other).sent_bytes == len(two)
    assert tree(there(other)) == tree(ended)


@pytest.mark.parametrize("side", ["old", pytest.param("new", marks=pytest.mark.long)])
def test_a_cut_connection_goes_on_with_the_rest(
    cluster_settings: ClusterSettings,
    other_settings: ClusterSettings,
    ssh_connect: Connect,
    cut_proxy: CutProxy,
    ended: Path,
    side: str,
) -> None:
    size = 12_000_000
    (ended / "large.pt").write_bytes(os.urandom(size))
    ports: dict[str, Any] = {side: cut_proxy.port}
    with (
        Cluster(cluster_settings, lambda: ssh_connect(ports.get("old"))) as cluster,
        Cluster(other_settings, lambda: ssh_connect(ports.get("new"))) as other,
    ):
        cut_proxy.cut_after(nbytes=4_000_000, direction="down" if side == "old" else "up", times=2)
        carry(cluster, other)
    assert tree(there(other)) == tree(ended)
    passed = cut_proxy.passed["down" if side == "old" else "up"]
    assert cut_proxy.connections >= 3
    # What was on its way at a cut is lost, and nothing else.
    assert passed < size + 8_000_000


@pytest.mark.long
def test_a_file_that_does_not_arrive_as_it_was_is_refused(
    cluster: Cluster, other: Cluster, ended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ended / "large.pt").write_bytes(os.urandom(3_000_000))
    whole = file_stream.fill

    def damaged(view: memoryview, *rest: Any) -> None:
        whole(view, *rest)
        view[7] ^= 1

    monkeypatch.setattr("airflow_provider_gpu_cluster.transfer.carrying.fill", damaged)
    with pytest.raises(ChecksumError, match=r"large\.pt"):
        carry(cluster, other)
    assert not (there(other) / "large.pt").exists()
    monkeypatch.undo()
    carry(cluster, other)
    assert tree(there(other)) == tree(ended)


@pytest.mark.long
def test_a_full_disk_keeps_everything_where_it_was(
    cluster: Cluster, other_settings: ClusterSettings, ssh_connect: Connect, ended: Path, tmp_path: Path
) -> None:
    (ended / "large.pt").write_bytes(os.urandom(9_000_000))
    before = tree(ended)
    disk = tmp_path / "small"
    with small_disk(disk, 16_000) as folder:
        settings = replace(other_settings, root_dir=str(folder / "ml-jobs"))
        with Cluster(settings, ssh_connect) as other, pytest.raises(NoSpaceError, match=r"18\.0 MB|9\.0 MB"):
            carry(cluster, other)
    assert tree(ended) == before


@pytest.mark.long
def test_a_link_that_leads_out_of_the_outputs_keeps_the_job_where_it_is(
    cluster: Cluster, other: Cluster, ended: Path
) -> None:
    (ended / "link").symlink_to("/etc")
    for ask in (lambda: cluster.to_carry("job"), lambda: carry(cluster, other)):
        with pytest.raises(CannotCarryError, match="outputs/link is a link that leads out of outputs/"):
            ask()
    assert not there(other).exists()


@pytest.mark.long
def test_a_job_that_runs_is_not_carried(cluster: Cluster, other: Cluster) -> None:
    jobs.submit(cluster, "sleep 60", job_id="job", gpus=1)
    with pytest.raises(JobConflictError, match="has not ended"):
        carry(cluster, other)
    assert cluster.to_carry("job")["bytes"] == 0


@pytest.mark.long
def test_a_job_that_comes_back_keeps_what_its_attempts_have_left(cluster: Cluster, other: Cluster, ended: Path) -> None:
    (ended / "one.pt").write_bytes(b"old")
    carry(cluster, other)
    jobs.submit(other, "echo new > $OUTPUT_DIR/one.pt; exit 3", job_id="job", gpus=1)
    assert jobs.wait(other, "job", JobState.FAILED).attempt == 2
    other.carry_to(cluster, "job", record=jobs.record())
    assert (ended / "one.pt").read_bytes() == b"new\n"
    assert (ended.parent / ".job/attempts/1/outputs/one.pt").read_bytes() == b"old"
    acts = [(line["act"], line.get("details", "")) for line in cluster.audit("job")["acts"] if line["act"] == "carry"]
    assert acts == [("carry", "its files are read for gpu02"), ("carry", "brought along from gpu02")]


def test_a_staged_job_brings_its_inputs(cluster: Cluster, other: Cluster, tmp_path: Path, cluster_folder: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print(open('../data/digits.csv').read())")
    (tmp_path / "digits.csv").write_text("1,2")
    (shared := cluster_folder / "shared").mkdir()
    data = ["digits.csv", f"cluster:{shared}"]
    sources = parse_sources(code="code", data=data, models=None, base_dir=tmp_path)
    cluster.stage("job", sources, record=jobs.record())
    carry(cluster, other, with_inputs=True)
    job = there(other).parent
    jobs.submit(other, "python3 train.py", job_id="job", gpus=1, sources=None)
    jobs.wait(other, "job", JobState.SUCCEEDED)
    assert (job / "logs" / "training.log").read_text() == "1,2\n"
    assert (job / "data" / "shared").resolve() == shared
    # They are what they were there, so the same sources are in place.
    here, before = (json.loads((folder / ".job/inputs.json").read_text()) for folder in (job, ended_of(cluster)))
    assert {name: one["identity"] for name, one in here.items()} == {
        name: one["identity"] for name, one in before.items()
    }


def ended_of(cluster: Cluster) -> Path:
    return Path(cluster.settings.root_dir) / "job"


TAKEN_BACK = {"state": "CANCELLED", "started_at": None, "placement": "withdrawn"}


@pytest.mark.long
def test_recoveries_that_are_used_up_go_along(cluster: Cluster, other: Cluster) -> None:
    script = "mkdir -p $CHECKPOINT_DIR; echo $ATTEMPT >> $CHECKPOINT_DIR/seen; "
    recover = {"user_error": 1}
    jobs.submit(cluster, script + "exit 3", job_id="job", gpus=1, recover=recover)
    ended = jobs.wait(cluster, "job", JobState.FAILED)
    assert (ended.attempt, ended.recovered) == (2, {"user_error": 1})
    # As if its second attempt had been taken back while it waited.
    attempt = ended_of(cluster) / ".job/attempts/2"
    record = json.loads((attempt / "exit.json").read_text())
    (attempt / "exit.json").write_text(json.dumps({**record, **TAKEN_BACK}))
    carry(cluster, other)
    jobs.submit(other, script + "exit 3", job_id="job", gpus=1, recover=recover)
    there_too = jobs.wait(other, "job", JobState.FAILED)
    assert (there_too.attempt, there_too.recovered) == (2, {"user_error": 1})
    assert [(one["attempt"], one["conn_id"]) for one in there_too.attempts] == [(1, cluster.settings.conn_id)]
    assert "recover allows no more" in there_too.message
    assert (there(other) / "checkpoints/seen").read_text() == "1\n2\n2\n"


@pytest.mark.long
def test_a_job_that_has_never_run_begins_with_its_first_attempt(cluster: Cluster, other: Cluster) -> None:
    cluster.stage("job", (), record=jobs.record())
    carried = carry(cluster, other)
    assert (carried.files, str(carried)) == (0, "nothing to bring along")
    assert jobs.submit(other, job_id="job", gpus=1).status.attempt == 1
    assert continuation_of(Root(other.settings.root_dir).job("job")) == {"attempt": 2}
