"""Placements: of several clusters one launches a job, and what another was told of it holds for ever."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.host.engine import HostEngine
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import array_submission, placed_jobs, placing, renewing, submission
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.ledger.ledger import Ledger
from airflow_provider_gpu_cluster.gpu_run.protocol.requests import PlaceCall, RenewCall, Submit
from airflow_provider_gpu_cluster.gpu_run.store import placements
from airflow_provider_gpu_cluster.gpu_run.store.next_attempt import follow
from airflow_provider_gpu_cluster.gpu_run.store.placed_launches import misplaced
from tests.gpu_run.attempts import begin, first_attempt, preempt, waits_forever
from tests.gpu_run.host import Host
from tests.gpu_run.old import DAY, make_old
from tests.harness.killed_at_each_step import killed_at_each_step
from tests.harness.small_disk import fill, small_disk


def tell(host: Host, kind: str, epoch: int, key: str = "1", *, job: str = "job", **more: Any) -> dict[str, Any]:
    """Tell a host of a placement, and return its answer."""
    own = {name: more.pop(name) for name in ("start_by", "renewed_only", "conn_id") if name in more}
    request: dict[str, Any] = {
        "job_id": job,
        "placement": {"epoch": epoch, "key": key, "conn_id": "slurm-a", **own},
        "kind": kind,
        "settings": host.settings,
        **more,
    }
    return dict(placing.answer(host.root, host.engine, cast(PlaceCall, request)).value)


def outcome(host: Host, kind: str, epoch: int, key: str = "1", **more: Any) -> str:
    return str(tell(host, kind, epoch, key, **more)["outcome"])


def launch(
    host: Host, epoch: int | None, key: str = "1", command: str = "sleep 100", *, job: str = "job", **more: Any
) -> dict[str, Any]:
    """Launch a job, or an array of ``elements``, for a placement; None for none."""
    own = {name: more.pop(name) for name in ("start_by", "renewed_only") if name in more}
    elements = more.pop("elements", 0)
    more.setdefault("request_key", key)
    request: dict[str, Any] = {**host.request(command, job_id=job, **more), "inputs": []}
    if epoch is not None:
        request["placement"] = {"epoch": epoch, "key": key, "conn_id": "gpu01", **own}
    if elements:
        one = {"spec": {}, "env": {}, "run_script": request["run_script"]}
        request["elements"] = [{**one, "job_id": f"{job}_{index}"} for index in range(elements)]
        return dict(array_submission.submit_array(host.root, host.engine, cast(Submit, request)))
    return dict(submission.submit(host.root, host.engine, cast(Submit, request)))


def renew(host: Host, epoch: int, key: str = "1", **more: Any) -> bool:
    request = {"jobs": [{"job_id": "job", "epoch": epoch, "key": key, **more}], "settings": host.settings}
    reply: Any = renewing.answer(host.root, host.engine, cast(RenewCall, request)).value
    return bool(reply["jobs"][0])


def refusal_of(host: Host, epoch: int | None, **more: Any) -> str:
    """Launch a job in vain, by another try, and return why."""
    with pytest.raises(Refused) as refusal:
        launch(host, epoch, **{"request_key": "another", **more})
    return refusal.value.code


def change_note(on: Host, **changes: Any) -> None:
    """Change what a host knows of a job's last moment to start."""
    note: Any = placements.placement_note(on.root, "job")
    note["start_by"].update(changes)
    placements.note_placement(on.root, note)


def start(host: Host, job: str = "job") -> dict[str, Any]:
    """Start the latest attempt of a job as another host's scheduler would, and return how it ended."""
    path = host.attempt(job).path
    subprocess.run([sys.executable, "-I", "-S", host.program, "supervise-launched", path], check=False)
    return dict(host.attempt(job).ended() or {})


@pytest.fixture
def still(host: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Return a host on which nobody serves the queue, so that jobs wait."""
    monkeypatch.setattr(HostEngine, "nudge", lambda engine: None)
    return host


# -- the order of placements -----------------------------------------------------------------------------------------


def test_of_two_that_choose_at_once_the_higher_one_launches(still: Host) -> None:
    assert outcome(still, "claim", 1, "a") == "claimed"
    assert outcome(still, "fence", 1, "b") == "fenced"
    assert refusal_of(still, 1, key="a") == protocol.PLACEMENT_OUTRANKED
    assert outcome(still, "claim", 2, "a") == "claimed"
    assert launch(still, 2, "a")["created"]
    assert outcome(still, "claim", 2, "a") == "claimed"
    assert not launch(still, 2, "a")["created"]


@pytest.mark.parametrize("kind", ["claim", "fence", "withdraw", "end"])
def test_a_lower_placement_is_outranked_and_changes_nothing(still: Host, kind: str) -> None:
    assert outcome(still, "claim", 2, "b") == "claimed"
    for epoch, key in ((1, "z"), (2, "a")):
        told = tell(still, kind, epoch, key)
        assert (told["outcome"], told["placement"]["epoch"], told["placement"]["key"]) == ("outranked", 2, "b")
    assert launch(still, 2, "b")["created"]


@pytest.mark.parametrize("kind", ["fence", "withdraw", "end"])
def test_what_was_refused_once_is_launched_only_for_a_later_choice(still: Host, kind: str) -> None:
    assert outcome(still, kind, 1) == outcome(still, kind, 1) == "fenced"
    assert outcome(still, "claim", 1) == "outranked"
    assert [refusal_of(still, epoch) for epoch in (None, 0, 1)] == [protocol.PLACEMENT_OUTRANKED] * 3
    status = still.status("job")
    assert (status["state"], status["moved_to"]) == ("UNKNOWN", "slurm-a")
    assert launch(still, 2)["created"]
    assert "moved_to" not in still.status("job")


def test_others_hear_which_clusters_were_chosen_before(still: Host) -> None:
    def chosen(told: dict[str, Any]) -> dict[str, int]:
        return {one["conn_id"]: one["epoch"] for one in told["chosen"]}

    assert chosen(tell(still, "fence", 1, conn_id="a")) == {"a": 1}
    assert chosen(tell(still, "claim", 2, conn_id="here")) == {"a": 1, "here": 2}
    assert chosen(tell(still, "fence", 3, conn_id="b")) == {"a": 1, "here": 2, "b": 3}
    assert chosen(tell(still, "fence", 2, "z", conn_id="c")) == {"a": 1, "here": 2, "b": 3}
    assert chosen(tell(still, "end", 4, conn_id="a")) == {"a": 4, "here": 2, "b": 3}
    assert chosen(cast(Any, placed_jobs.placed(still.root, still.engine, "job"))) == {"a": 4, "here": 2, "b": 3}


def test_a_launch_without_a_placement_that_comes_meanwhile_is_seen(still: Host, monkeypatch: Any) -> None:
    note = placements.note_placement

    def late(root: Any, wanted: Any) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(HostEngine, "nudge", lambda engine: None)
        launch(still, None)
        note(root, wanted)

    monkeypatch.setattr(placing, "note_placement", late)
    assert outcome(still, "fence", 1) == "launched"
    assert placements.placement_note(still.root, "job") is None
    assert misplaced(still.job("job"), cast(Any, still.attempt("job").request())) is None


# -- taking back -----------------------------------------------------------------------------------------------------


def test_what_waits_is_taken_back_and_may_come_again(still: Host) -> None:
    launch(still, 1)
    assert outcome(still, "fence", 2) == "launched"
    assert [outcome(still, "withdraw", 2) for _ in range(2)] == ["ended"] * 2
    status = still.status("job")
    assert (status["state"], status["reason"], status["placement"]) == ("CANCELLED", "cancelled", "withdrawn")
    assert (status["message"], status["moved_to"]) == (
        "moved to another cluster (slurm-a) before it started",
        "slurm-a",
    )
    assert still.queue.entries() == []
    assert start(still)["placement"] == "withdrawn"
    assert refusal_of(still, 1) == protocol.PLACEMENT_OUTRANKED
    (end,) = Ledger(still.root.own).lines(kinds=["end"])
    assert (end["state"], end["placement"]) == ("CANCELLED", "withdrawn")
    acts = [(line["act"], line.get("details")) for line in Ledger(still.root.own).lines(kinds=["act"])]
    assert ("move", "moved to another cluster (slurm-a)") in acts
    # It comes back, for the same try.
    assert launch(still, 3, command="true")["created"]
    assert not launch(still, 3, command="true")["created"]
    assert start(still)["state"] == "SUCCEEDED"


def test_what_runs_is_left_alone_or_ended(host: Host) -> None:
    launch(host, 1)
    host.wait("job", state="RUNNING")
    for kind in ("fence", "withdraw"):
        told = tell(host, kind, 2, "b")
        assert (told["outcome"], told["status"]["state"], told["placement"]["epoch"]) == ("launched", "RUNNING", 1)
    assert outcome(host, "end", 2, "b", by="ada") == "ended"
    status = host.status("job")
    assert (status["state"], status["placement"]) == ("CANCELLED", "fenced")
    assert status["message"] == "moved to another cluster (slurm-a)"


def test_a_later_claim_takes_over_what_is_here(still: Host) -> None:
    launch(still, 1, command="true", start_by=time.time() + 100)
    told = tell(still, "claim", 2, "b")
    assert (told["outcome"], told["status"]["state"], told["placement"]["epoch"]) == ("launched", "QUEUED", 2)
    assert not renew(still, 1)
    assert renew(still, 2, "b")
    assert start(still)["state"] == "SUCCEEDED"


@pytest.mark.parametrize("is_one_running", [False, True])
def test_an_array_is_taken_back_whole_or_not_at_all(still: Host, is_one_running: bool) -> None:
    launch(still, 1, elements=3)
    if is_one_running:
        begin(still.attempt("job_1"))
    assert outcome(still, "withdraw", 2) == ("launched" if is_one_running else "ended")
    ends = [dict(still.attempt(f"job_{index}").ended() or {}).get("placement") for index in range(3)]
    assert ends == [None if is_one_running else "withdrawn"] * 3
    assert (misplaced(still.job("job_0"), cast(Any, still.attempt("job_0").request())) is None) == is_one_running
    if not is_one_running:
        assert refusal_of(still, 1, elements=3) == protocol.PLACEMENT_OUTRANKED
        assert launch(still, 3, elements=3)["launched"] == 3


def test_an_element_that_is_about_to_begin_waits_for_the_decision(still: Host) -> None:
    launch(still, 1, command="true", elements=2)
    before: Any = placements.placement_note(still.root, "job")
    path = still.attempt("job_0").path
    placements.note_placement(still.root, cast(Any, {**before, "withdrawal": {"epoch": 2, "key": "1"}}))
    begun = subprocess.Popen([sys.executable, "-I", "-S", still.program, "supervise-launched", path])
    deadline = time.monotonic() + 60
    while still.attempt("job_0").claimed() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # It has all but begun, and nothing was decided.
    assert outcome(still, "withdraw", 2) == "launched"
    assert begun.wait(60) == 0
    assert still.attempt("job_0").ended()["state"] == "SUCCEEDED"  # type: ignore[index]


def test_a_job_that_goes_on_by_itself_goes_on_only_where_it_belongs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_forever(monkeypatch)
    attempt = first_attempt(host, "job")
    preempt(attempt)
    # It goes on here.
    assert outcome(host, "fence", 1) == "launched"
    assert host.attempt("job").number == 2
    begin(host.attempt("job"))
    preempt(host.attempt("job"))
    with placements.placing(host.root, "job"):
        elsewhere = placements.new_note("job", {"epoch": 1, "key": "1", "conn_id": "slurm-a"}, "end", None)
        placements.note_placement(host.root, elsewhere)
    assert follow(host.job("job")) is None
    status = host.status("job")
    assert (status["state"], status["attempt"], status["placement"]) == ("CANCELLED", 3, "withdrawn")
    assert outcome(host, "end", 1) == "ended"


# -- the last moment to start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "is_over"),
    [
        ({}, False),
        ({"at": 1.0}, True),
        # Its clock was set back meanwhile.
        ({"boottime": 1.0}, True),
        # It was booted since then.
        ({"boot": "another"}, True),
        # A compute node, whose clock is its own.
        ({"boot": "another", "host": "login"}, False),
        ({"boot": "another", "host": "login", "boottime": 1.0}, False),
        ({"boot": "another", "host": "login", "at": 1.0}, True),
    ],
)
def test_when_the_last_moment_to_start_is_over(still: Host, change: dict[str, Any], is_over: bool) -> None:
    launch(still, 1, start_by=time.time() + 100)
    change_note(still, **change)
    request = cast(Any, still.attempt("job").request())
    assert (misplaced(still.job("job"), request) is not None) == is_over
    if is_over:
        # It cannot be brought back, and everybody hears so.
        assert not renew(still, 1, start_by=time.time() + 100)
        status = still.status("job")
        assert (status["state"], status["placement"]) == ("CANCELLED", "expired")
        assert "nobody was in contact until its last moment to start" in status["message"]
        assert refusal_of(still, 1) == protocol.PLACEMENT_EXPIRED
        assert outcome(still, "claim", 1) == "outranked"
        assert outcome(still, "claim", 2) == "claimed"


def test_an_attempt_that_gets_its_turn_too_late_does_not_begin(still: Host, tmp_path: Path) -> None:
    launch(still, 1, command=f"touch {tmp_path}/ran", start_by=time.time() + 100)
    change_note(still, at=time.time() - 1)
    ended = start(still)
    assert (ended["state"], ended["reason"], ended["placement"]) == ("CANCELLED", "cancelled", "expired")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("renewed_only", [True, False])
def test_an_orphan_that_only_renewals_keep_is_no_end_of_its_job(host: Host, renewed_only: bool) -> None:
    launch(host, 1, renewed_only=renewed_only, orphan_timeout_s=0.2)
    deadline = time.monotonic() + 60
    while (end := dict(host.attempt("job").ended() or {})) == {}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (end["state"], end["reason"]) == ("CANCELLED", "orphaned")
    assert end.get("placement") == ("expired" if renewed_only else None)
    assert launch(host, 2, request_key="1")["created"] == renewed_only


def test_requests_that_come_too_late(still: Host) -> None:
    assert refusal_of(still, 1, start_by=time.time() - 1) == protocol.PLACEMENT_EXPIRED
    launch(still, 2, start_by=time.time() + 100)
    assert not renew(still, 2, start_by=time.time() - 1)


def test_renewals(still: Host) -> None:
    def start_by() -> float | None:
        note: Any = placements.placement_note(still.root, "job")
        return cast("float | None", note["placement"].get("start_by"))

    now = time.time()
    assert not renew(still, 1)
    launch(still, 2, start_by=now + 100)
    assert not renew(still, 1, start_by=now + 300)
    assert not renew(still, 3, start_by=now + 300)
    for said, kept in ((200, 200), (150, 200), (None, None), (300, None)):
        assert renew(still, 2, start_by=None if said is None else now + said)
        assert start_by() == (None if kept is None else now + kept)
    tell(still, "withdraw", 3)
    assert not renew(still, 3)


def test_what_has_begun_in_time_is_renewed_after_that(still: Host) -> None:
    launch(still, 1, start_by=time.time() + 100)
    begin(still.attempt("job"))
    change_note(still, at=1.0)
    assert renew(still, 1, start_by=time.time() + 100)


# -- programs that do not know of this -------------------------------------------------------------------------------


def test_the_script_looks_itself_where_an_older_program_does_not(still: Host) -> None:
    launch(still, 1, command='echo "ran $ATTEMPT"')
    env = {"JOB_DIR": still.job("job").path, "ATTEMPT": "1", "PATH": "/usr/bin:/bin"}

    def run(**more: str) -> tuple[int, str]:
        script = ["bash", still.job("job").at("run.sh")]
        done = subprocess.run(script, env={**env, **more}, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert run() == (0, "ran 1\n")
    tell(still, "end", 2)
    assert run() == (75, "gpu-run: moved to another cluster (slurm-a); it is not started\n")
    assert run(GPU_RUN_HAS_LOOKED="1") == (0, "ran 1\n")
    # A next try begins with the script that is here.
    from airflow_provider_gpu_cluster.gpu_run.supervise.start_check import with_check

    script = Path(still.job("job").at("run.sh")).read_text()
    assert with_check(script, still.program) == script


# -- free GPUs -------------------------------------------------------------------------------------------------------


def _claim_free(host: Host, job: str, gpus: int) -> str:
    return outcome(host, "claim", 1, job=job, if_free=True, spec={"gpus": gpus})


def test_the_same_free_gpus_are_promised_once(still: Host) -> None:
    # Not forked: a copy of a process with threads may wait for ever for a lock that one of them held.
    context = multiprocessing.get_context("spawn")
    with context.Pool(3, initializer=context.Barrier(3).wait) as pool:
        answers = pool.starmap(_claim_free, [(still, f"j{number}", 1) for number in range(7)])
    assert sorted(answers) == ["claimed"] * 4 + ["taken"] * 3
    claimed = [f"j{number}" for number, answer in enumerate(answers) if answer == "claimed"]
    assert {promise.job_id for promise in placements.promises(still.root)} == set(claimed)
    # One that is launched waits for them, one that is told otherwise leaves them, and one that never comes as well.
    launch(still, 1, job=claimed[0])
    assert _claim_free(still, "late", 1) == "taken"
    tell(still, "withdraw", 1, job=claimed[1])
    assert _claim_free(still, "late", 1) == "claimed"
    path = Path(still.root.own, "placements", "promises", f"{claimed[2]}.json")
    note = json.loads(path.read_text())
    note["made"]["boottime"] -= 61
    path.write_text(json.dumps(note))
    assert _claim_free(still, "later", 1) == "claimed"
    assert _claim_free(still, "latest", 1) == "taken"


# -- faults ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Host, Path]]:
    """Return a host whose disk is full, with a job that waits."""
    monkeypatch.setattr(HostEngine, "nudge", lambda engine: None)
    with small_disk(tmp_path / "disk", 4096) as disk:
        host = Host(disk)
        launch(host, 1)
        fill(disk)
        yield host, disk


def test_on_a_full_disk_nothing_is_claimed_and_what_waits_is_taken_back(full_host: tuple[Host, Path]) -> None:
    host, disk = full_host
    for kind in ("claim", "fence"):
        with pytest.raises(Refused) as refusal:
            tell(host, kind, 1, job="other")
        assert refusal.value.code == protocol.NO_SPACE
    assert renew(host, 1, start_by=time.time() + 100)
    assert outcome(host, "withdraw", 2) == "ended"
    assert host.status("job")["placement"] == "withdrawn"
    (disk / "filler").unlink()
    assert placements.placement_note(host.root, "other") is None
    assert placements.promises(host.root) == []
    assert refusal_of(host, 1) == protocol.PLACEMENT_OUTRANKED


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["claim", "fence", "withdraw", "end"])
def test_a_program_killed_at_each_step_and_asked_again(still: Host, kind: str, every: int) -> None:
    """Whatever was done is done whole, and what follows it is as if nothing had happened."""
    number = 0

    def prepare() -> None:
        nonlocal number
        number += 1
        if kind in ("withdraw", "end"):
            launch(still, 1, job=f"j{number}")

    def work() -> None:
        tell(still, kind, 2, job=f"j{number}", spec={"gpus": 1})

    for step in killed_at_each_step(work, prepare, every):
        job = f"j{number}"
        if kind in ("withdraw", "end"):
            # It waits as before, or was taken back: nothing between.
            state = still.status(job)
            assert state["state"] == "QUEUED" or state["placement"] == "withdrawn", (step, state)
        answers = {"claim": "claimed", "fence": "fenced"}
        assert outcome(still, kind, 2, job=job, spec={"gpus": 1}) == answers.get(kind, "ended"), step
        assert refusal_of(still, 1, job=job) == protocol.PLACEMENT_OUTRANKED
        if kind != "claim":
            assert still.status(job)["moved_to"] == "slurm-a"
    assert number > 1


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.long)])
def test_a_launch_killed_at_each_step_and_asked_again(still: Host, every: int) -> None:
    number = 0

    def prepare() -> None:
        nonlocal number
        number += 1
        tell(still, "claim", 1, job=f"j{number}", spec={"gpus": 1})

    for step in killed_at_each_step(lambda: launch(still, 1, job=f"j{number}"), prepare, every):
        job = f"j{number}"
        if step % 2:
            launch(still, 1, job=job)
            assert still.attempt(job).number == 1
            assert outcome(still, "fence", 2, job=job) == "launched"
        else:
            # Nobody knows whether it was launched.
            assert outcome(still, "end", 2, job=job) in ("fenced", "ended")
            assert refusal_of(still, 1, job=job) == protocol.PLACEMENT_OUTRANKED
            assert still.status(job)["state"] in ("UNKNOWN", "CANCELLED")


def test_a_record_that_makes_no_sense_launches_nothing(still: Host) -> None:
    path = Path(still.root.own, "placements", "job.json")
    for text in ("", "[]", "{}", '{"kind": "claim", "placement": {"epoch": "1", "key": "1"}}'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        with pytest.raises(Refused, match="remove it if no other cluster has the job"):
            tell(still, "claim", 1)
        with pytest.raises(Refused, match=str(path)):
            launch(still, 1)
        assert still.status("job")["state"] == "UNKNOWN"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "grab"},
        {"job_id": "../x"},
        {"by": 7},
        {"spec": {"gpus": "all"}},
        {"spec": []},
        *[
            {"placement": placement}
            for placement in (
                None,
                {},
                {"epoch": 1},
                {"epoch": True, "key": "1"},
                {"epoch": -1, "key": "1"},
                {"epoch": 1 << 60, "key": "1"},
                {"epoch": 1, "key": 1},
                {"epoch": 1, "key": "x" * 2000},
                {"epoch": 1, "key": "1", "start_by": float("nan")},
                {"epoch": 1, "key": "1", "start_by": "now"},
                {"epoch": 1, "key": "1", "members": [1]},
                {"epoch": 1, "key": "1", "conn_id": {}},
            )
        ],
    ],
)
def test_requests_that_make_no_sense(still: Host, change: dict[str, Any]) -> None:
    request = {"job_id": "job", "kind": "claim", "placement": {"epoch": 1, "key": "1"}, **change}
    with pytest.raises(Refused) as refusal:
        placing.answer(still.root, still.engine, cast(PlaceCall, request))
    assert refusal.value.code == protocol.BAD_REQUEST
    if "placement" in change:
        asked = {**still.request("true", job_id="job"), "inputs": [], **change}
        with pytest.raises(Refused) as refusal:
            submission.submit(still.root, still.engine, cast(Submit, asked))
        assert refusal.value.code == protocol.BAD_REQUEST
    assert not still.job("job").exists()


# -- garbage ---------------------------------------------------------------------------------------------------------


def test_a_record_is_kept_for_a_week_and_as_long_as_its_job_is_here(still: Host) -> None:
    launch(still, 1, job="here")
    tell(still, "fence", 1, job="gone")
    folder = Path(still.root.own, "placements")
    make_old(folder, 8 * DAY)
    tell(still, "fence", 1, job="new")
    placements.forget_old(still.root)
    left = {path.stem for path in folder.iterdir() if path.is_file()}
    assert left == {"here", "new"}


def test_a_cancel_of_a_job_that_was_moved_is_a_cancel(still: Host) -> None:
    launch(still, 1)
    cancel(still.root, still.engine, ["job"], "ada", 0)
    assert outcome(still, "withdraw", 2) == "ended"
    status = still.status("job")
    assert status["message"] == "cancelled by ada before it started"
    assert "placement" not in status
