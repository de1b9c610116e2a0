"""The command engine with launchers of every kind, called directly."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.command import handover
from airflow_provider_gpu_cluster.gpu_run.engines.wanted import Wanted
from airflow_provider_gpu_cluster.gpu_run.errors import Refused
from airflow_provider_gpu_cluster.gpu_run.jobs import status
from airflow_provider_gpu_cluster.gpu_run.jobs.cancel import cancel
from airflow_provider_gpu_cluster.gpu_run.linux import processes
from airflow_provider_gpu_cluster.gpu_run.store.budgets import keep_budget
from tests.gpu_run.host import is_alive, processes_with
from tests.harness.leftovers import processes_under
from tests.servers.command_site import DETACHING, CommandRoot, Site, without

RootWith = Callable[[str], CommandRoot]
Eventually = Callable[..., Any]

RUN = 'echo run >> "$OUTPUT_DIR/runs"'


def runs(root: CommandRoot, job_id: str) -> int:
    path = Path(root.job(job_id).at("outputs", "runs"))
    return len(path.read_text().split()) if path.exists() else 0


def put_in_queue(text: str = "") -> str:
    """Return a launcher whose process waits until a file ``go`` lies beside it, and becomes the script then."""
    wait = 'until [ -e "$0.go" ]; do sleep 0.02; done; exec "$1"'
    return f'setsid sh -c \'{wait}\' "$0" "$1" < /dev/null > /dev/null 2>&1 &\necho {text}$!'


# -- launchers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        DETACHING,
        f'echo "queue 2.7 of 2026-11-02 12:00:01, /opt/v3/bin" >&2\n{DETACHING}',
        'setsid "$1" &\necho "12:30:01 gpu-run 1.2 node7: started (pid $!) for user42, 3 jobs ahead."',
        'echo $$; exec "$1"',
        'sh -c \'echo $$; exec "$0"\' "$1"',
        'nohup sh "$1" > /dev/null 2>&1 &\nprintf %s $!',
        'cat "$1" | setsid bash > /dev/null 2>&1 &\nsleep 0.2; pgrep -n -f supervise-launched',
    ],
)
def test_a_launcher(site: Site, root_with: RootWith, script: str) -> None:
    root = root_with(f"{site.launcher(script)} {{script}}")
    job_id = root.submit(f"{RUN}; pwd; exit 0")
    ended = root.wait(job_id)
    assert ended["state"] == protocol.SUCCEEDED, ended
    assert runs(root, job_id) == 1
    assert site.calls == 1
    assert root.log(job_id) == f"{root.job(job_id).at('code')}\n"
    assert Path(root.job(job_id).at("outputs", "SUCCESS")).read_text().startswith("SUCCEEDED exit_code=0")
    assert not root.engine._notes.all()


def test_what_the_launcher_finds(site: Site, root_with: RootWith) -> None:
    launcher = site.launcher(f'(pwd; umask; echo "$2|$3|$SEED") > "$1/told"; shift 3\n{DETACHING}')
    root = root_with(f"{launcher} {{job_dir}} {{gpus}} {{job_id}} {{script}}")
    job_id = root.submit("true", gpus=3, job_id="an-id", env={"SEED": "7"})
    root.wait(job_id)
    assert Path(root.job(job_id).at("told")).read_text() == f"{root.job(job_id).path}\n0022\n3|an-id|\n"


def test_what_the_job_finds(site: Site, root_with: RootWith) -> None:
    root = root_with(
        f"{site.launcher('export CUDA_VISIBLE_DEVICES=5,3 SITE=x' + chr(10) + DETACHING)} {{script}} {{gpus}}"
    )
    job_id = root.submit(
        'echo "$CUDA_VISIBLE_DEVICES|$GPU_COUNT|$SITE|$SEED|$ATTEMPT|$JOB_ID"', gpus=2, env={"SEED": "7"}
    )
    ended = root.wait(job_id)
    assert root.log(job_id) == f"5,3|2|x|7|1|{job_id}\n"
    assert ended["gpus"] == [5, 3]


def test_a_launcher_that_calls_the_script_twice_runs_it_once(
    site: Site, root_with: RootWith, eventually: Eventually
) -> None:
    script = 'setsid "$1" > /dev/null 2>&1 &\nsetsid "$1" > /dev/null 2>&1 &\necho $!'
    root = root_with(f"{site.launcher(script)} {{script}}")
    job_id = root.submit(f"{RUN}; sleep 1")
    assert root.wait(job_id)["state"] == protocol.SUCCEEDED
    assert runs(root, job_id) == 1
    eventually(lambda: not processes_with("supervise-launched", root.attempt(job_id).path))
    subprocess.run([root.attempt(job_id).at(f"{job_id}.sh")], check=True)
    assert runs(root, job_id) == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("true", "its launcher has printed no process id; it said nothing"),
        ("echo submitted 4.5 to q7 >&2", "its launcher has printed no process id; it said: submitted 4.5 to q7"),
        (
            "echo no budget left; echo ask ann >&2; exit 3",
            "has ended with exit code 3; it said: no budget left | ask ann",
        ),
        ("echo 17; exit 3", "has ended with exit code 3; it said: 17"),
        ("echo 1", "has printed no process id; it said: 1"),
        ("echo $PPID", "as the first number, which is an older process"),
    ],
)
def test_a_launcher_that_fails(site: Site, root_with: RootWith, script: str, message: str) -> None:
    root = root_with(f"{site.launcher(script)} {{script}}")
    with pytest.raises(Refused) as raised:
        root.submit(RUN, job_id="fails")
    assert raised.value.code == protocol.LAUNCH_REFUSED
    assert message in raised.value.message
    found = root.status("fails")
    assert (found["state"], found["reason"]) == (protocol.FAILED, protocol.LAUNCH_FAILED)
    assert message in found["message"]
    assert not os.path.exists(root.attempt("fails").at("env.json"))
    assert site.calls == 1
    assert not root.note_path("fails").exists()
    # A retry is the next attempt, and calls it again.
    root.settings["launch_command"] = f"{site.launcher(DETACHING)} {{script}}"
    root.submit(RUN, job_id="fails", request_key="2")
    assert root.wait("fails")["attempt"] == 2


def test_a_launcher_that_hangs_is_ended(
    site: Site, root_with: RootWith, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(handover, "TIMEOUT_S", 0.5)
    root = root_with(f"{site.launcher('trap : TERM; echo wait...; sleep 1000 & while :; do wait; done')} {{script}}")
    with pytest.raises(Refused, match=r"has printed no process id in 0\.5 s, and was ended; it said: wait\.\.\."):
        root.submit(RUN, job_id="hangs")
    assert root.status("hangs")["reason"] == protocol.LAUNCH_FAILED
    launcher = json.loads(Path(root.attempt("hangs").at("events.jsonl")).read_text().splitlines()[1])
    eventually(lambda: not processes_with(*launcher["command"][:1]))


def test_those_of_an_array_are_not_all_tried_with_a_launcher_that_hangs(
    site: Site, root_with: RootWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "TIMEOUT_S", 0.5)
    root = root_with(f"{site.launcher('sleep 1000')} {{script}}")
    attempts = root.attempts(20, RUN)
    with pytest.raises(Refused, match="printed no process id in"):
        root.engine.launch(attempts)
    states = [root.status(attempt.job.job_id)["state"] for attempt in attempts]
    assert 0 < states.count(protocol.FAILED) <= 8
    assert states.count(protocol.FAILED) + states.count(protocol.QUEUED) == 20


def test_a_process_that_is_gone_at_once_and_has_begun_nothing(
    site: Site, root_with: RootWith, eventually: Eventually
) -> None:
    root = root_with(f"{site.launcher('true & echo out of quota >&2; echo $!')} {{script}}")
    job_id = root.submit(RUN)
    assert root.status(job_id)["state"] == protocol.QUEUED
    ended = root.wait(job_id)
    assert (ended["state"], ended["reason"]) == (protocol.FAILED, protocol.LAUNCH_FAILED)
    assert re.fullmatch(
        r"process \d+ of the launcher has ended, and has not begun it; the launcher said: \d+ \| out of quota",
        ended["message"],
    )
    # Should it begin now all the same, it finds that it is over.
    subprocess.run([root.attempt(job_id).at(f"{job_id}.sh")], check=True)
    assert runs(root, job_id) == 0


def test_a_zombie_stands_for_nothing(site: Site, root_with: RootWith) -> None:
    # Its parent becomes a program that does not ask for it.
    script = "setsid sh -c 'true & echo $! >&3; exec sleep 1000' 3>&1 > /dev/null 2>&1 &\nsleep 0.3"
    root = root_with(f"{site.launcher(script)} {{script}}")
    job_id = root.submit(RUN)
    assert root.wait(job_id)["reason"] == protocol.LAUNCH_FAILED


def test_a_process_that_hands_the_script_on(site: Site, root_with: RootWith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_gpu_cluster.gpu_run.engines.command.engine.GONE_S", 10.0)
    script = 'setsid sh -c \'(sleep 0.5; exec "$0") > /dev/null 2>&1 &\' "$1" &\necho $!'
    root = root_with(f"{site.launcher(script)} {{script}}")
    job_id = root.submit(f"{RUN}; sleep 1.5")
    ended = root.wait(job_id)
    assert ended["state"] == protocol.SUCCEEDED
    assert runs(root, job_id) == 1


# -- what cannot be launched -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launch_command", "spec", "message"),
    [
        ("gpu-run {gpu} {script}", {}, "launch_command .* cannot be used: there is no placeholder {gpu}; valid are"),
        ("sh --gpus {gpus}", {}, "it has no {script}"),
        ("sh '{script}", {}, "its quotes do not match"),
        ("", {}, "it is empty"),
        ("no-such-launcher {script}", {}, "there is no program 'no-such-launcher' on .*, which is /"),
        ("/no/such/launcher {script}", {}, "there is no program '/no/such/launcher' on "),
        ("bin/launch {script}", {}, "there is no program 'bin/launch' .* must begin with an absolute path"),
        ("sh {script} {memory}", {}, "memory must be given here"),
        ("sh {script}", {"gpus": 2}, "the job asks for gpus=2, but launch_command of the connection has no"),
        (
            "sh {script}",
            {"gpu_type": "H100"},
            "the job asks for gpu_type=H100, but launch_command of the connection has no",
        ),
        ("sh {script}", {"nodes": 2}, "the job asks for 2 nodes"),
    ],
)
def test_what_can_never_run_is_refused(
    root_with: RootWith, launch_command: str, spec: dict[str, Any], message: str
) -> None:
    root = root_with(launch_command)
    with pytest.raises(Refused, match=message):
        root.submit("true", job_id="never", **spec)
    assert not root.job("never").attempts()
    # Only the launcher knows when a job starts.
    asked: Any = {"gpus": 1, **spec}
    never, plain = root.engine.prospects([Wanted(asked), Wanted({"gpus": 1})], [], within_s=1.0)
    assert not never["fits"]
    assert re.search(message, never["why_not"])
    assert plain == ({"fits": True} if spec else never)


def test_a_home_is_understood(
    site: Site, root_with: RootWith, monkeypatch: pytest.MonkeyPatch, cluster_folder: Path
) -> None:
    site.launcher(DETACHING)
    monkeypatch.setenv("HOME", str(cluster_folder / "the site's"))
    root = root_with("~/launch {script}")
    assert root.run("true")["state"] == protocol.SUCCEEDED


# -- who dies meanwhile ------------------------------------------------------------------------------------------


def kill_while_it_launches(root: CommandRoot, job_id: str, eventually: Eventually) -> None:
    """Have a process of its own hand a job over, and kill that when it has called the launcher."""
    (attempt,) = root.attempts(1, RUN, job_id=job_id)
    root.engine._handover.note(attempt)
    process = subprocess.Popen([sys.executable, "-I", "-S", root.program, "launch-waiting"])
    eventually(lambda: "launcher" in root.note(job_id))
    process.kill()
    process.wait()
    assert "process" not in root.note(job_id)
    assert root.status(job_id)["state"] == protocol.QUEUED
    _make_old(root, job_id)


def test_killed_before_anything_was_noted(site: Site, root_with: RootWith, eventually: Eventually) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    (attempt,) = root.attempts(1, RUN)
    eventually(lambda: root.status(attempt.job.job_id)["message"] == "it is being handed to the launcher")
    _make_old(root, attempt.job.job_id)
    assert root.wait(attempt.job.job_id)["state"] == protocol.SUCCEEDED
    assert (site.calls, runs(root, attempt.job.job_id)) == (1, 1)


def test_killed_before_the_launcher_began(site: Site, root_with: RootWith) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    (attempt,) = root.attempts(1, RUN)
    root.engine._handover.note(attempt)
    job_id = attempt.job.job_id
    note = {**root.note(job_id), "called_at": time.time() - 60, "offsets": [0, 0]}
    root.note_path(job_id).write_text(json.dumps(note))
    _make_old(root, job_id)
    assert root.wait(job_id)["state"] == protocol.SUCCEEDED
    assert (site.calls, runs(root, job_id)) == (1, 1)


@pytest.mark.parametrize("pause", ["sleep 1", ""])
def test_killed_while_the_launcher_was_called(
    site: Site, root_with: RootWith, eventually: Eventually, pause: str
) -> None:
    root = root_with(f"{site.launcher(f'sleep 1; {DETACHING}; {pause}')} {{script}}")
    kill_while_it_launches(root, "killed", eventually)
    assert root.wait("killed")["state"] == protocol.SUCCEEDED
    assert (site.calls, runs(root, "killed")) == (1, 1)


def test_killed_when_the_launcher_had_failed(site: Site, root_with: RootWith, eventually: Eventually) -> None:
    root = root_with(f"{site.launcher('sleep 1; echo no more >&2')} {{script}}")
    kill_while_it_launches(root, "killed", eventually)
    ended = root.wait("killed")
    assert (ended["reason"], site.calls) == (protocol.LAUNCH_FAILED, 1)
    assert ended["message"] == "its launcher has printed no process id; it said: no more"


def test_asked_again_and_again_it_is_launched_once(site: Site, root_with: RootWith) -> None:
    root = root_with(f"{site.launcher(put_in_queue())} {{script}}")
    job_id = root.submit(RUN)
    for key in ("1", "1", "2", "3"):
        root.submit(RUN, job_id=job_id, request_key=key)
    root.engine.launch([root.attempt(job_id)])
    assert site.calls == 1
    assert len(root.job(job_id).attempts()) == 1


def _make_old(root: CommandRoot, job_id: str) -> None:
    """Let an attempt have been noted long ago."""
    path = root.note_path(job_id)
    path.write_text(json.dumps({**json.loads(path.read_text()), "noted_at": time.time() - 60}))


# -- how jobs are followed ---------------------------------------------------------------------------------------


def test_it_waits_in_the_launcher_s_queue(site: Site, root_with: RootWith, cluster_folder: Path) -> None:
    root = root_with(f"{site.launcher(put_in_queue('job '))} {{script}}")
    job_id = root.submit(f"{RUN}; sleep 1000")
    found = root.status(job_id)
    pid = root.note(job_id)["process"]["pid"]
    assert found["state"] == protocol.QUEUED
    assert found["message"] == f"process {pid} of the launcher lives, and has not begun the job"
    assert root.engine.capacity()["waiting_jobs"] == 1
    (cluster_folder / "the site's" / "launch.go").touch()
    found = root.wait(job_id, state=protocol.RUNNING)
    assert found["gpus"] == [0]
    assert root.engine.capacity()["waiting_jobs"] == 0
    assert root.engine.still_runs(job_id)


def test_a_note_that_is_spoilt_keeps_no_other_job_from_being_followed(site: Site, root_with: RootWith) -> None:
    root = root_with(f"{site.launcher(put_in_queue())} {{script}}")
    spoilt, other = root.submit("true"), root.submit("true")
    root.note_path(spoilt).write_text("{")
    found = status.statuses(root.root, root.engine, [spoilt, other], 0)
    assert [one["state"] for one in found] == [protocol.UNKNOWN, protocol.QUEUED]
    assert root.engine.capacity()["waiting_jobs"] == 1


def test_100_waiting_jobs_cost_one_question(
    site: Site, root_with: RootWith, cluster_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = root_with(f"{site.launcher(put_in_queue())} {{script}}")
    first = root.submit("true")
    attempts = root.attempts(99, "true")
    for attempt in attempts:
        root.engine._handover.note(attempt)
        note: Any = {**root.note(first), "path": attempt.path}
        root.engine._notes.write(attempt, note)
    log = cluster_folder / "asked"
    commands = cluster_folder / "bin"
    commands.mkdir()
    (commands / "ps").write_text(f'#!/bin/sh\necho "$@" >> {log}\nPATH={os.environ["PATH"]} exec ps "$@"\n')
    (commands / "ps").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setattr("airflow_provider_gpu_cluster.gpu_run.engines.command.engine.INTERVAL_S", 600.0)
    root.forget_what_was_seen()
    ids = [first, *(attempt.job.job_id for attempt in attempts)]
    for _ in range(3):
        found = status.statuses(root.root, root.engine, ids, 0)
        assert {one["state"] for one in found} == {protocol.QUEUED}
    (asked,) = log.read_text().splitlines()
    assert re.fullmatch(r"-p [\d,]+ -o pid=,stat=", asked)


def test_ps_that_fails_is_no_end(
    site: Site, root_with: RootWith, monkeypatch: pytest.MonkeyPatch, cluster_folder: Path, eventually: Eventually
) -> None:
    root = root_with(f"{site.launcher(put_in_queue())} {{script}}")
    job_id = root.submit(f"{RUN}; sleep 1000")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", without(cluster_folder, "ps"))
        found = eventually(lambda: root.status(job_id) if root.status(job_id)["state"] == protocol.UNKNOWN else None)
        assert found["message"].endswith("cannot be looked at: there is no ps in PATH")
        with pytest.raises(Refused, match="jobs cannot be followed on"):
            root.engine.capacity()
        with pytest.raises(Refused, match="cannot be looked at"):
            root.engine.still_runs(job_id)
        os.kill(root.note(job_id)["process"]["pid"], signal.SIGKILL)
        time.sleep(0.3)
        assert root.status(job_id)["state"] == protocol.UNKNOWN
    root.wait(job_id)
    assert root.status(job_id)["reason"] == protocol.LAUNCH_FAILED


def test_a_ps_that_shows_nothing_is_not_believed(
    site: Site, root_with: RootWith, monkeypatch: pytest.MonkeyPatch, cluster_folder: Path, eventually: Eventually
) -> None:
    root = root_with(f"{site.launcher(put_in_queue())} {{script}}")
    job_id = root.submit("sleep 1000")
    commands = cluster_folder / "bin"
    commands.mkdir()
    (commands / "ps").write_text("#!/bin/sh\necho 99999 S\n")
    (commands / "ps").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    eventually(lambda: root.status(job_id)["state"] == protocol.UNKNOWN)


def test_another_process_of_that_number_does_not_stand_for_it(
    site: Site, root_with: RootWith, eventually: Eventually
) -> None:
    root = root_with(f"{site.launcher(put_in_queue())} {{script}}")
    job_id = root.submit("sleep 1000")
    note = root.note(job_id)
    note["process"] = {**note["process"], "start": note["process"]["start"] - 100}
    root.note_path(job_id).write_text(json.dumps(note))
    assert root.wait(job_id)["reason"] == protocol.LAUNCH_FAILED
    # It is not ended for that.
    assert is_alive(note["process"]["pid"])


@pytest.mark.parametrize("moment", ["waiting", "running"])
def test_on_another_host_it_is_unknown(
    site: Site, root_with: RootWith, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    root = root_with(f"{site.launcher(put_in_queue() if moment == 'waiting' else DETACHING)} {{script}}")
    job_id = root.submit("sleep 1000")
    if moment == "running":
        root.wait(job_id, state=protocol.RUNNING)
    monkeypatch.setattr(processes, "hostname", lambda: "login2")
    found = root.status(job_id)
    assert found["state"] == protocol.UNKNOWN
    assert "this is login2; point the connection there" in found["message"]
    with pytest.raises(Refused, match="this is login2"):
        root.engine.still_runs(job_id)


def test_a_supervisor_on_another_host_is_followed_by_the_launcher_s_process(
    site: Site, root_with: RootWith, eventually: Eventually, cluster_folder: Path
) -> None:
    # The launcher's process waits for another, as one does that has started the script by ssh.
    script = 'setsid sh -c \'"$0" & echo $! > "$0.pid"; until [ -e "$0.go" ]; do sleep 0.02; done\' "$1" &\necho $!'
    root = root_with(f"{site.launcher(script)} {{script}}")
    job_id = root.submit("sleep 1000")
    root.wait(job_id, state=protocol.RUNNING)
    attempt = root.attempt(job_id)
    claim = json.loads(Path(attempt.at("claim.json")).read_text())
    Path(attempt.at("claim.json")).write_text(json.dumps({**claim, "host": "node7"}))
    assert root.status(job_id)["state"] == protocol.RUNNING
    assert root.status(job_id)["host"] == "node7"
    Path(attempt.at(f"{job_id}.sh.go")).touch()
    found = eventually(lambda: root.status(job_id) if root.status(job_id)["state"] != protocol.RUNNING else None)
    assert found["state"] == protocol.UNKNOWN
    assert (
        f"this host cannot see whether the job's supervisor still runs on node7 (process {claim['pid']})"
        in (found["message"])
    )
    # Its supervisor finds a cancel by itself.
    cancel(root.root, root.engine, [job_id], "ann", 0)
    eventually(lambda: root.status(job_id)["state"] == protocol.CANCELLED)


@pytest.mark.parametrize(("marker", "state"), [("SUCCESS", protocol.SUCCEEDED), ("FAILED", protocol.FAILED)])
def test_a_marker_ends_it_when_there_is_no_record(
    site: Site, root_with: RootWith, marker: str, state: str, eventually: Eventually
) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    job_id = root.submit("exit 3" if marker == "FAILED" else "true")
    before = root.wait(job_id)
    eventually(lambda: Path(root.job(job_id).at("outputs", marker)).exists())
    # Its guard would say that it is lost.
    eventually(lambda: not processes_with("supervise-launched", root.attempt(job_id).path))
    Path(root.attempt(job_id).at("exit.json")).unlink()
    found = root.status(job_id)
    for name in ("state", "reason", "exit_code", "started_at", "ended_at"):
        assert found[name] == before[name]
    assert found["message"] == f"outputs/{marker} says so, and there is no other record of its end"


def test_a_marker_of_somebody_else_ends_what_never_claimed(site: Site, root_with: RootWith) -> None:
    script = "mkdir -p outputs; touch outputs/SUCCESS; true & echo $!"
    root = root_with(f"{site.launcher(script)} {{script}}")
    assert root.wait(root.submit("true"))["state"] == protocol.SUCCEEDED


def test_a_marker_of_the_job_s_own_is_no_end_while_it_runs(site: Site, root_with: RootWith) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    job_id = root.submit('touch "$OUTPUT_DIR/SUCCESS"; echo on; sleep 1000')
    while not Path(root.job(job_id).at("outputs", "SUCCESS")).exists():
        time.sleep(0.02)
    assert root.status(job_id)["state"] == protocol.RUNNING


def test_markers_of_the_attempt_before_end_nothing(site: Site, root_with: RootWith) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    job_id = root.submit("exit 3")
    root.wait(job_id)
    root.settings["launch_command"] = f"{site.launcher('true & echo $!')} {{script}}"
    root.submit("true", job_id=job_id, request_key="2")
    ended = root.wait(job_id)
    assert (ended["attempt"], ended["reason"]) == (2, protocol.LAUNCH_FAILED)


def test_a_supervisor_that_is_killed_is_lost(site: Site, root_with: RootWith, eventually: Eventually) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    job_id = root.submit("sleep 1000 & sleep 1000")
    found = root.wait(job_id, state=protocol.RUNNING)
    for pid in (root.note(job_id)["process"]["pid"], found["pid"]):
        os.kill(pid, signal.SIGKILL)
    ended = eventually(lambda: root.status(job_id) if root.status(job_id)["state"] != protocol.RUNNING else None)
    assert ended["state"] == protocol.LOST
    eventually(lambda: not processes.with_environment(f"JOB_ID={job_id}"))


def test_limits_hold(site: Site, root_with: RootWith) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    assert root.run("sleep 1000", time_limit_s=0.3)["reason"] == protocol.TIME_LIMIT


def test_a_directory_that_is_gone_is_no_end_while_it_runs(
    site: Site, root_with: RootWith, eventually: Eventually, tmp_path: Path
) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    launched = tmp_path / "launched"
    job_id = root.submit(f'until [ -e "{launched}" ]; do sleep 0.05; done; rm -rf "$JOB_DIR"; sleep 1000')
    launched.touch()
    found = eventually(lambda: root.status(job_id) if not os.path.exists(root.job(job_id).path) else None)
    assert found["state"] == protocol.UNKNOWN
    assert "it runs, but its directory" in found["message"]
    for pid in processes.with_environment(f"JOB_ID={job_id}"):
        processes.send_signal([pid], signal.SIGKILL)
    eventually(lambda: root.status(job_id)["state"] in protocol.FINAL_STATES)


# -- the end -----------------------------------------------------------------------------------------------------


def test_a_cancel_ends_the_process_that_waits(site: Site, root_with: RootWith, eventually: Eventually) -> None:
    root = root_with(f"{site.launcher(put_in_queue())} {{script}}")
    job_id = root.submit(RUN)
    pid = root.note(job_id)["process"]["pid"]
    for _ in range(2):
        (found,) = cancel(root.root, root.engine, [job_id], "ann", 10)
        assert (found["state"], found["message"]) == (protocol.CANCELLED, "cancelled by ann before it started")
    assert not os.path.exists(root.attempt(job_id).at("env.json"))
    eventually(lambda: not is_alive(pid))
    assert runs(root, job_id) == 0


def test_a_cancel_ends_the_job_that_runs(site: Site, root_with: RootWith, eventually: Eventually) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    job_id = root.submit("sleep 1000 & sleep 1000")
    pid = root.wait(job_id, state=protocol.RUNNING)["pid"]
    for _ in range(2):
        (found,) = cancel(root.root, root.engine, [job_id], "ann", 10)
        assert (found["state"], found["message"]) == (protocol.CANCELLED, "cancelled by ann")
    eventually(lambda: not is_alive(pid))
    assert not processes.with_environment(f"JOB_ID={job_id}")


def test_a_cancel_while_the_launcher_is_called(
    site: Site, root_with: RootWith, monkeypatch: pytest.MonkeyPatch, cluster_folder: Path
) -> None:
    root = root_with(f"{site.launcher(f'sleep 1000; {DETACHING}')} {{script}}")
    (attempt,) = root.attempts(1, RUN)
    waited: list[float] = []

    def cancel_meanwhile(seconds: float) -> None:
        if not waited:
            assert cancel(root.root, root.engine, [attempt.job.job_id], "ann", 0)[0]["state"] == protocol.CANCELLED
        waited.append(seconds)
        sleep(seconds)

    sleep = time.sleep
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", cancel_meanwhile)
        root.engine.launch([attempt])
    assert runs(root, attempt.job.job_id) == 0
    assert not processes_under(cluster_folder)


def test_a_launcher_that_takes_the_job_away(site: Site, root_with: RootWith) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    job_id = root.submit("sleep 1000")
    root.wait(job_id, state=protocol.RUNNING)
    os.kill(root.note(job_id)["process"]["pid"], signal.SIGTERM)
    ended = root.wait(job_id)
    assert (ended["state"], ended["reason"]) == (protocol.LOST, protocol.REASON_LOST)
    assert ended["message"].startswith("its launcher, or somebody on the host, ended its supervisor (process ")


# -- going on by itself ------------------------------------------------------------------------------------------

GOES_ON = f'{RUN}; test "$ATTEMPT" = 1 || exit 0; '


@pytest.mark.parametrize(
    ("command", "reason"),
    [("exit 85", protocol.CHECKPOINTED), ("sleep 600", protocol.TIME_LIMIT), ("kill -9 $PPID", protocol.REASON_LOST)],
)
def test_the_launcher_is_called_again(
    site: Site, root_with: RootWith, eventually: Eventually, command: str, reason: str
) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    recover = {"checkpointed": 1, "time_limit": 1, "lost": 1}
    job_id = root.submit(GOES_ON + command, recover=recover, checkpoint_exit_code=85, time_limit_s=0.5)
    waiting = eventually(lambda: waits(root, job_id))
    assert waiting["message"].startswith("attempt 1 "), waiting
    assert "; attempt 2 " in waiting["message"]
    request = json.loads(Path(root.attempt(job_id).at("request.json")).read_text())
    ended = root.wait(job_id)
    assert (ended["state"], ended["attempt"], ended["recovered"]) == (protocol.SUCCEEDED, 2, {reason: 1})
    assert (runs(root, job_id), site.calls) == (2, 2)
    # Not a moment too early.
    events = [json.loads(line) for line in Path(root.attempt(job_id).at("events.jsonl")).read_text().splitlines()]
    (called,) = [event["at"] for event in events if event["event"] == "launcher_called"]
    assert datetime.fromisoformat(called).timestamp() > request["recovery"]["not_before"] - 0.01


def waits(root: CommandRoot, job_id: str) -> dict[str, Any] | None:
    found = root.status(job_id)
    return found if (found["state"], found["attempt"]) == (protocol.QUEUED, 2) else None


def test_what_waits_to_go_on_is_cancelled(site: Site, root_with: RootWith, eventually: Eventually) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    job_id = root.submit(GOES_ON + "exit 85", recover={"checkpointed": 3}, checkpoint_exit_code=85)
    eventually(lambda: waits(root, job_id))
    assert cancel(root.root, root.engine, [job_id], "ann", 20)[0]["state"] == protocol.CANCELLED
    eventually(lambda: not processes_with(root.program, "launch-waiting"))
    assert (runs(root, job_id), site.calls) == (1, 1)


def test_a_launcher_that_fails_the_second_time(site: Site, root_with: RootWith) -> None:
    once = f'[ ! -e "$0.called" ] || {{ echo no budget left; exit 3; }}; touch "$0.called"\n{DETACHING}'
    root = root_with(f"{site.launcher(once)} {{script}}")
    job_id = root.submit(GOES_ON + "exit 85", recover={"checkpointed": 3}, checkpoint_exit_code=85)
    ended = root.wait(job_id)
    assert (ended["reason"], ended["attempt"], runs(root, job_id)) == (protocol.LAUNCH_FAILED, 2, 1)
    assert ended["message"].startswith("attempt 1 saved and asked to go on after "), ended
    assert ended["message"].endswith("its launcher has ended with exit code 3; it said: no budget left"), ended


def test_the_process_that_waits_to_call_the_launcher_is_killed(
    site: Site, root_with: RootWith, eventually: Eventually
) -> None:
    root = root_with(f"{site.launcher(DETACHING)} {{script}}")
    job_id = root.submit(GOES_ON + "exit 85", recover={"checkpointed": 3}, checkpoint_exit_code=85)
    eventually(lambda: waits(root, job_id))
    for pid in eventually(lambda: processes_with(root.program, "launch-waiting")):
        os.kill(pid, signal.SIGKILL)
    assert root.wait(job_id)["state"] == protocol.SUCCEEDED
    assert site.calls == 2


# -- budgets -----------------------------------------------------------------------------------------------------


def test_a_job_beyond_its_budget_is_handed_over_when_there_is_room(root_with: RootWith, site: Site) -> None:
    root = root_with(site.launcher(DETACHING) + " {script}")
    root.settings.update({"conn_id": "gpu", "gpu_hours_budget": {"all": 0}, "over_budget": "wait"})
    job_id = root.submit(RUN)
    for _ in range(2):
        found = root.status(job_id)
        assert (found["state"], "0 of 0" in found["message"]) == ("QUEUED", True)
    assert not root.note_path(job_id).exists()
    root.settings["gpu_hours_budget"] = {"all": 1}
    call: Any = {"settings": root.settings, "caller": {"settings_read_at": time.time()}}
    keep_budget(root.root.own, call)
    assert root.wait(job_id)["state"] == "SUCCEEDED"
    assert runs(root, job_id) == 1
