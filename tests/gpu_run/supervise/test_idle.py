"""Jobs that leave their GPUs idle, and what only looks like it."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run.protocol.idle_policy import CANCEL, HALF, WHOLE, IdlePolicy, idle_policy
from airflow_provider_gpu_cluster.gpu_run.store.idle_notes import IDLE, idle_note, note_idle
from airflow_provider_gpu_cluster.gpu_run.supervise.allocation import Allocation
from airflow_provider_gpu_cluster.gpu_run.supervise.idle import IdleWatch, JobLook
from airflow_provider_gpu_cluster.gpu_run.supervise.idle_looks import IdleLooks
from tests.gpu_run.host import Host
from tests.harness.gpu_scripts import GIB, HOUR_S, MIB, MINUTE_S, ScriptedJob, busy_jobs, idle_jobs, steady
from tests.harness.patience import PATIENCE_S

USUAL = IdlePolicy(on_idle=CANCEL)
WINDOW_S = USUAL.window_s
# The tests of one property each need no more.
HOURS = 5.0


@pytest.mark.parametrize("job", busy_jobs(7, HOURS), ids=lambda job: job.name)
def test_a_job_that_works_in_any_way_is_left_alone(job: ScriptedJob) -> None:
    assert job.stopped_at(USUAL) is None
    assert WHOLE not in [level for _, level in job.told]


@pytest.mark.parametrize(("job", "since"), idle_jobs(7), ids=lambda one: getattr(one, "name", ""))
def test_an_idle_job_is_found_after_its_window(job: ScriptedJob, since: float) -> None:
    """It counts from the moment at which it became idle, or the end of its grace."""
    since = max(since, WINDOW_S)
    stopped_at = job.stopped_at(USUAL)
    assert stopped_at is not None
    assert since + WINDOW_S - MINUTE_S < stopped_at < since + WINDOW_S + MINUTE_S
    assert [level for _, level in job.told] == [HALF, WHOLE]


# -- one property each -------------------------------------------------------------------------------------------


class Watched:
    """A job that is looked at every ten seconds; it is idle, unless a look says something else."""

    def __init__(self, policy: IdlePolicy = USUAL) -> None:
        self.now = 1000.0
        self.saved_ago_s = float("inf")
        self.asked = 0
        self.watch = IdleWatch(policy, saved_ago_s=self._saved, now=self.now, clock=lambda: 1.7e9 + self.now)
        self.note: Any = None

    def _saved(self) -> float:
        self.asked += 1
        return self.saved_ago_s

    def look(
        self, minutes: float, percent: float | None = 0.0, *, pause_s: float = 10.0, memory: int = GIB, **more: Any
    ) -> str | None:
        """Look for so long, and return the level then."""
        until = self.now + minutes * MINUTE_S
        while self.now < until:
            self.now += pause_s
            self.note = self.watch.look(JobLook([percent], [memory], **more), self.now)
        return None if self.note is None else str(self.note["level"])


def test_the_first_window_is_a_grace() -> None:
    watched = Watched()
    assert watched.look(44) is None
    assert watched.look(2) == HALF
    assert watched.look(13) == HALF
    assert watched.look(2) == WHOLE


def test_a_note_has_the_numbers() -> None:
    watched = Watched(IdlePolicy(min_percent=5, window_s=WINDOW_S, on_idle=CANCEL))
    assert watched.look(60.5, 0.4) == WHOLE
    assert watched.note == {
        "level": WHOLE,
        "since": "2023-11-14T23:00:00.000+00:00",
        "idle_s": WINDOW_S,
        "percent": 0.4,
        "min_percent": 5,
        "window_s": WINDOW_S,
        "on_idle": CANCEL,
    }


@pytest.mark.parametrize(
    "life",
    [
        {"percent": 10.0},
        {"progress": 1},
        {"memory": GIB + 5 * MIB},
        {"percent": None},
        {"is_stopped": True},
        {"pause_s": 121.0},
    ],
    ids=lambda life: next(iter(life)),
)
def test_a_moment_of_life_lets_it_begin_anew(life: dict[str, Any]) -> None:
    watched = Watched()
    assert watched.look(59) == HALF
    assert watched.look(0.1, **life) is None
    rest = {name: value for name, value in life.items() if name in ("progress", "memory")}
    assert watched.look(14.5, **rest) is None
    assert watched.look(1, **rest) == HALF
    assert watched.look(15, **rest) == WHOLE


@pytest.mark.parametrize(("percent", "level"), [(4.5, WHOLE), (5.0, None), (8.0, None)])
def test_the_mean_decides(percent: float, level: str | None) -> None:
    assert Watched().look(100, percent) == level


def test_memory_that_trembles_is_no_life_and_memory_that_creeps_is() -> None:
    trembling, creeping = Watched(), Watched()
    for minute in range(100):
        trembling.look(1, memory=GIB + minute % 2 * 2 * MIB)
        creeping.look(1, memory=GIB + minute * MIB // 2)
    assert trembling.note["level"] == WHOLE
    assert creeping.note is None


def test_files_count_from_when_they_were_saved_and_are_seldom_looked_for() -> None:
    watched = Watched()
    watched.saved_ago_s = 5 * MINUTE_S
    assert watched.look(46) is None
    assert watched.asked == 1
    watched.saved_ago_s = float("inf")
    assert watched.look(8) is None
    assert watched.look(3) == HALF
    # It was saved 10 minutes before the job would have been idle for all of its window.
    watched.saved_ago_s = 10 * MINUTE_S
    assert watched.look(15) is None
    assert watched.asked == 3


def test_looks_that_are_rare_take_longer() -> None:
    watched = Watched()
    assert watched.look(66, pause_s=30.0) is None
    assert watched.look(3, pause_s=30.0) == HALF
    assert watched.look(33, pause_s=30.0) == HALF
    assert watched.look(5, pause_s=30.0) == WHOLE


def test_what_was_noted_stays_until_the_job_computes() -> None:
    watched = Watched(IdlePolicy())
    watched.look(60.5)
    first = watched.note
    assert watched.look(300) == WHOLE
    assert watched.note is first
    assert watched.look(0.1, 90.0) is None


def test_a_window_of_its_own_and_never() -> None:
    assert Watched(IdlePolicy(window_s=6.0)).look(0.21, pause_s=0.5) == WHOLE
    assert Watched(IdlePolicy(window_s=6.0)).look(0.16, pause_s=0.5) == HALF
    assert Watched(IdlePolicy(min_percent=0)).look(1000) is None


def test_a_gpu_that_is_not_measured_is_never_idle() -> None:
    job = ScriptedJob("half of them", [steady(0.0), lambda now, past_s: None], hours=3.0)
    assert job.stopped_at(USUAL) is None
    assert job.told == []


def test_the_policy_is_the_jobs_else_the_connections_else_the_usual_one() -> None:
    spec: Any = {"gpus": 1, "min_gpu_utilization": 0, "utilization_window_s": None}
    assert idle_policy(spec, {"min_gpu_utilization": 9, "utilization_window_s": 60.0}) == (0, 60.0, "warn")
    assert idle_policy({"gpus": 1}, {"on_idle": "cancel"}) == (5.0, 1800.0, "cancel")
    assert idle_policy({"gpus": 1, "on_idle": "warn"}, {"on_idle": "cancel"}).on_idle == "warn"


# -- from the points of a sampler --------------------------------------------------------------------------------


def test_points_of_a_sampler(host: Host) -> None:
    host.run("true", job_id="job", min_gpu_utilization=5)
    attempt = host.attempt("job")
    # The marker of its end is a file that has just been saved.
    shutil.rmtree(host.job("job").at("outputs"))

    def level(gpus: list[Any], points: list[Any], visible: str | None = None) -> str | None:
        """Return the level that is noted when such points have come for two hours."""
        looks = IdleLooks(attempt, Allocation(gpus, "", [], visible=visible), 0.0)
        for number in range(1, int(2 * HOUR_S / 10)):
            looks.look(points[number % len(points)], number * 10.0)
        note = idle_note(attempt.path)
        note_idle(attempt.path, None)
        return None if note is None else note["level"]

    one: Any = [{"key": "GPU-1", "index": 0}]
    instance: Any = [{"key": "MIG-1", "index": 0}]
    idle: Any = [{"gpus": [{"index": 0, "percent": 0, "memory_bytes": GIB}]}]
    assert level(one, idle) == WHOLE
    # The driver says 0 of a MIG instance since it does not know it.
    assert level(instance, idle) is None
    assert level(one, idle, "MIG-3f") is None
    assert level(one, idle, "GPU-3f") == WHOLE
    assert level([*one, {"key": "GPU-2", "index": 1}], idle) is None
    assert level(one, [{}]) is None
    assert level(one, idle * 120 + [{"gpus": [{"index": 0}]}]) != WHOLE
    assert level([], [{}]) is None


def test_a_spoilt_note_is_none(tmp_path: Path) -> None:
    note = Watched()
    note.look(60.5)
    note_idle(str(tmp_path), note.note)
    assert idle_note(str(tmp_path)) == note.note
    spoilt: dict[str, Any]
    for spoilt in ({"level": "?"}, {"idle_s": "long"}, {"percent": -1}, {"on_idle": []}, {"since": 3}):
        (tmp_path / IDLE).write_text(json.dumps({**note.note, **spoilt}))
        assert idle_note(str(tmp_path)) is None
    note_idle(str(tmp_path), None)
    note_idle(str(tmp_path), None)
    assert not (tmp_path / IDLE).exists()


# -- for real ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_an_idle_job_is_warned_and_stopped_and_does_not_go_on(
    cluster_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = cluster_folder / "gpus.json"
    fake.write_text(json.dumps({"gpus": [{"percent": 0.4, "memory_bytes": GIB}, {"percent": 60, "memory_bytes": GIB}]}))
    monkeypatch.setenv("GPU_RUN_FAKE_NVML", str(fake))
    host = Host(cluster_folder, virtual_gpus=2)
    save = 'trap "echo saves; exit 85" TERM; while :; do sleep 0.05; done'
    recover = {"checkpointed": 3, "lost": 3, "user_error": 3, "hang": 3}
    limits: dict[str, Any] = {"utilization_window_s": 1.2, "on_idle": "cancel"}
    idle = host.submit(save, job_id="idle", recover=recover, **limits)
    host.wait(idle, state="RUNNING")
    busy = host.submit("exec sleep 100", job_id="busy", **limits)
    seen = []
    deadline = time.monotonic() + PATIENCE_S
    while (status := host.status(idle))["state"] == "RUNNING" and time.monotonic() < deadline:
        seen += [status["idle"]["level"]] if "idle" in status and status["idle"]["level"] not in seen else []
        time.sleep(0.02)
    end = host.wait(idle)
    assert seen[:1] == [HALF]
    assert (end["state"], end["reason"], end["kind"], end["attempt"]) == ("FAILED", "idle", "idle", 1)
    assert end["message"].startswith("its GPU use was 0.4 % in the mean for ")
    assert end["message"].endswith(" s, less than min_gpu_utilization=5")
    assert "idle" not in end
    assert "saves" in host.log(idle)
    still = host.status(busy)
    assert (still["state"], still.get("idle")) == ("RUNNING", None)
    os.kill(still["pid"], 15)
    host.wait(busy)
