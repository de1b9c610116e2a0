"""Every parameter means the same in every mode: one table, and all modes against a real cluster."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_gpu_cluster.cluster import Cluster
from airflow_provider_gpu_cluster.watch import watch
from tests.harness.deferral import own_watchers, task_logs
from tests.operators.modes import (
    ALL,
    DEFERRABLE,
    DEFERRABLE_SUBMIT,
    LAUNCHED_BY_TRIGGER,
    RESCHEDULE,
    RUNS,
    SCHEDULED,
    SENSORS,
    SUBMIT,
    SUBMITS,
    Mode,
    Outcome,
    Scene,
    outcome,
)
from tests.servers.proxy import CutProxy

GATE = "until [ -e {gate} ]; do sleep 0.02; done"
GONE = "GPU cluster cannot be reached; the job is not affected, waiting on"
BACK = "GPU cluster is reached again"


def nothing(scene: Scene) -> None: ...


def release(scene: Scene) -> None:
    """Let the job go on when the task's log says that it runs."""
    scene.until_told(RUNS)
    scene.open_gate()


def release_after_a_step(scene: Scene) -> None:
    scene.until_told("GPU job progress: step 1")
    scene.open_gate()


def cancel(scene: Scene) -> None:
    scene.until_told(RUNS)
    scene.cluster.cancel([job_of(scene)], requested_by="somebody else")


def kill_supervisor(scene: Scene) -> None:
    scene.until_told(RUNS)
    pid = scene.cluster.statuses([job_of(scene)])[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def cut_for_good(scene: Scene) -> None:
    scene.until_told(RUNS)
    scene.until(lambda: scene.logs.output == ["one"])
    scene.proxy.refusing = True
    scene.proxy.cut_now()


def cut_for_a_while(scene: Scene) -> None:
    cut_for_good(scene)
    scene.until_told(GONE)
    scene.proxy.refusing = False
    scene.until_told(BACK)
    scene.open_gate()


def job_of(scene: Scene) -> str:
    (job_id,) = {str(record.fields["job_id"]) for record in scene.logs.told}
    return job_id


def through_proxy(scene: Scene) -> None:
    scene.proxy.refusing = False
    scene.connect("gpu_cluster_default", port=scene.proxy.port)


def only_the_other_connection_works(scene: Scene) -> None:
    scene.connect("gpu_cluster_default", port=1)
    scene.connect("other")


def no_long_commands(scene: Scene) -> None:
    """Let the cluster run no command that would tell news by itself."""
    python = scene.folder / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *" watch") exit 1;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    scene.connect("gpu_cluster_default", extra={"python": str(python)})


# Each of the others goes the way of one of these: it pokes in a worker, or it waits in a trigger that a worker starts.
FEW = (RESCHEDULE, SCHEDULED, SUBMIT, LAUNCHED_BY_TRIGGER)
# One that pokes, and one that waits in a trigger, for what all others do in the same way.
PAIR = (RESCHEDULE, LAUNCHED_BY_TRIGGER)


@dataclass(frozen=True)
class Row:
    """
    A parameter, or something that happens, and what comes of it in each mode.

    :param command: what the job runs; ``{gate}`` is a file that appears when it may go on.
    :param arguments: what the task is given that waits for it.
    :param job: what else the job is given.
    :param before: called before the task that waits is started.
    :param meanwhile: called while it waits.
    :param has_ended: whether the job has ended when the task begins to wait.
    :param modes: where the row applies.
    :param because: why it does not apply to the others.
    :param now: those of them in which it is tried each time; the long tests try the others.
    """

    name: str
    expected: Outcome
    command: str = GATE
    arguments: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Scene], None] = nothing
    meanwhile: Callable[[Scene], None] = release
    has_ended: bool = False
    modes: tuple[Mode, ...] = ALL
    because: str = ""
    now: tuple[Mode, ...] = FEW


ONE_TWO_THREE = f"echo one; echo two; {GATE}; printf three"
STILL_RUNS = f"echo one; {GATE}"
RUNS_FOREVER = "echo one; exec sleep 1000"
STEP_1 = """echo '{{"step": 1, "total": 2, "loss": 0.5}}' >>"$PROGRESS_FILE" """
STEP_2 = """echo '{{"step": 2, "total": 2, "loss": 0.25}}' >>"$PROGRESS_FILE" """


def print_lines(count: int) -> str:
    return f"seq 1 {count} | sed 's/$/ {'x' * 60}/'"


def many_lines(count: int) -> list[str]:
    return [f"{number} {'x' * 60}" for number in range(1, count + 1)]


TABLE = [
    Row("success", Outcome(output=["one", "two", "three"]), ONE_TWO_THREE, now=ALL),
    Row("get_logs", Outcome(output=[]), ONE_TWO_THREE, {"get_logs": False}, now=PAIR),
    Row(
        "much output at the end",
        Outcome(output=many_lines(6000)),
        f"{GATE}; {print_lines(6000)}",
    ),
    Row(
        "progress",
        Outcome(
            events=[
                RUNS,
                "GPU job progress: step 1 of 2 (50%), loss 0.5",
                "GPU job progress: step 2 of 2 (100%), loss 0.25",
                "GPU job succeeded",
            ]
        ),
        f"{STEP_1}; {GATE}; {STEP_2}",
        meanwhile=release_after_a_step,
    ),
    Row(
        "job that fails",
        Outcome(
            end="GpuJobFailed",
            job="FAILED",
            cause=("FAILED", "user_error", 3, "boom\n"),
            output=["one", "boom"],
            events=[RUNS],
        ),
        f"echo one; {GATE}; echo boom >&2; exit 3",
        now=ALL,
    ),
    Row(
        "job that fails, get_logs=False",
        Outcome(
            end="GpuJobFailed", job="FAILED", cause=("FAILED", "user_error", 3, "boom\n"), output=[], events=[RUNS]
        ),
        f"{GATE}; echo boom >&2; exit 3",
        {"get_logs": False},
        now=PAIR,
    ),
    Row(
        "job that runs too long",
        Outcome(
            end="GpuJobTimeLimit",
            job="FAILED",
            cause=("FAILED", "time_limit", None, "one\n"),
            output=["one"],
            events=[RUNS],
        ),
        RUNS_FOREVER,
        job={"time_limit": 3},
        meanwhile=nothing,
        now=PAIR,
    ),
    Row(
        "job that somebody cancels",
        Outcome(
            end="GpuJobCancelled",
            job="CANCELLED",
            cause=("CANCELLED", "cancelled", None, "one\n"),
            output=["one"],
            events=[RUNS],
        ),
        RUNS_FOREVER,
        meanwhile=cancel,
        now=PAIR,
    ),
    Row(
        "job that is lost",
        Outcome(end="GpuJobLost", job="LOST", cause=("LOST", "lost", None, "one\n"), output=["one"], events=[RUNS]),
        RUNS_FOREVER,
        job={"recover": False},
        meanwhile=kill_supervisor,
        now=PAIR,
    ),
    Row(
        "job that had ended before",
        Outcome(output=["one", "two"], events=["GPU job succeeded"]),
        "echo one; printf two",
        has_ended=True,
        meanwhile=nothing,
    ),
    Row(
        "job that had failed before",
        Outcome(
            end="GpuJobFailed",
            job="FAILED",
            cause=("FAILED", "user_error", 1, "one\n"),
            output=["one"],
            events=[],
        ),
        "echo one; exit 1",
        has_ended=True,
        meanwhile=nothing,
        modes=SENSORS,
        because="a task that launches starts the next attempt of a job that has failed",
    ),
    Row(
        "unreachable_timeout, outage that lasts longer",
        Outcome(end="GpuClusterConnectionError", job="RUNNING", output=["one"], events=[RUNS, GONE]),
        RUNS_FOREVER,
        {"unreachable_timeout": 0.5},
        before=through_proxy,
        meanwhile=cut_for_good,
        now=PAIR,
    ),
    Row(
        "unreachable_timeout, outage that ends in time",
        Outcome(output=["one", "two"], events=[RUNS, GONE, BACK, "GPU job succeeded"]),
        f"echo one; {GATE}; echo two",
        {"unreachable_timeout": timedelta(seconds=60)},
        before=through_proxy,
        meanwhile=cut_for_a_while,
        now=ALL,
    ),
    Row(
        "gpu_cluster_conn_id",
        Outcome(output=["one"]),
        STILL_RUNS,
        {"gpu_cluster_conn_id": "other"},
        before=only_the_other_connection_works,
    ),
    Row(
        "cluster that lets no command run for long",
        Outcome(output=["one", "two", "three"]),
        ONE_TWO_THREE,
        before=no_long_commands,
        now=PAIR,
    ),
    Row(
        "do_xcom_push",
        Outcome(output=["one"], xcoms={"gpu_job", "gpu_job_link"}),
        STILL_RUNS,
        {"do_xcom_push": False},
    ),
    Row(
        "timeout",
        Outcome(end="AirflowSensorTimeout", job="RUNNING", output=["one"], events=[RUNS]),
        RUNS_FOREVER,
        {"timeout": 2},
        meanwhile=nothing,
        now=ALL,
        modes=SENSORS,
        because="only sensors have it",
    ),
    Row(
        "soft_fail, time is over",
        Outcome(end="skipped", job="RUNNING", output=["one"], events=[RUNS]),
        RUNS_FOREVER,
        {"timeout": 2, "soft_fail": True},
        meanwhile=nothing,
        modes=SENSORS,
        because="only sensors have it",
    ),
    Row(
        "soft_fail, job fails",
        Outcome(
            end="GpuJobFailed", job="FAILED", cause=("FAILED", "user_error", 3, "one\n"), output=["one"], events=[RUNS]
        ),
        f"{STILL_RUNS}; exit 3",
        {"soft_fail": True},
        modes=SENSORS,
        because="only sensors have it",
    ),
    Row(
        "execution_timeout",
        Outcome(end="AirflowTaskTimeout", job="CANCELLED", output=["one"], events=[RUNS]),
        RUNS_FOREVER,
        {"execution_timeout": timedelta(seconds=3)},
        meanwhile=nothing,
        now=ALL,
        modes=SUBMITS,
        because="a sensor never cancels a job, and in reschedule mode Airflow holds each poke by itself to it",
    ),
    Row(
        "execution_timeout, cancel_on_kill=False",
        Outcome(end="AirflowTaskTimeout", job="RUNNING", output=["one"], events=[RUNS]),
        RUNS_FOREVER,
        {"execution_timeout": timedelta(seconds=3), "cancel_on_kill": False},
        meanwhile=nothing,
        modes=SUBMITS,
        because="only a task that launches has it",
    ),
    Row(
        "env, which is masked where output is shown",
        Outcome(output=["token ***", "seed 12345", *many_lines(10_000), "token ***"], masked={"hush-hush"}),
        # So much at the end that a trigger leaves some of it to a worker.
        f'echo token "$API_TOKEN"; echo seed "$SEED"; {GATE}; {print_lines(10_000)}; echo token "$API_TOKEN"',
        job={"env": {"API_TOKEN": "hush-hush", "SEED": "12345"}},
        modes=SUBMITS,
        because="a sensor does not know the environment of the job",
    ),
    Row(
        "end_from_trigger",
        Outcome(output=["one"]),
        STILL_RUNS,
        {"end_from_trigger": False},
        modes=(DEFERRABLE, SCHEDULED, DEFERRABLE_SUBMIT, LAUNCHED_BY_TRIGGER),
        because="the others have no trigger",
    ),
]


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # How long a worker tries again to reach a cluster before it calls that an outage.
    monkeypatch.setattr(watch, "RETRY_FOR_S", 0.1)
    with own_watchers(monkeypatch):
        yield


def cases() -> Iterator[Any]:
    """Yield each row with the modes in which it is tried each time, and with those that are left to the long tests."""
    for row in TABLE:
        name = row.name.replace(" ", "-")
        now = tuple(mode for mode in row.modes if mode in row.now)
        yield pytest.param(row, now, id=name)
        if later := tuple(mode for mode in row.modes if mode not in now):
            yield pytest.param(row, later, id=f"{name}, other modes", marks=pytest.mark.long)


@pytest.mark.parametrize(("row", "modes"), list(cases()))
def test_every_parameter_means_the_same_in_every_mode(
    row: Row,
    modes: tuple[Mode, ...],
    cluster: Cluster,
    gpu_cluster_conn: dict[str, Any],
    cut_proxy: CutProxy,
    tmp_path: Path,
) -> None:
    wrong: dict[str, dict[str, Any]] = {}
    for mode in modes:
        folder = tmp_path / mode.name
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch, task_logs(folder / "log", patch) as logs:
            scene = Scene(
                mode.name,
                cluster=cluster,
                connection=gpu_cluster_conn,
                proxy=cut_proxy,
                folder=folder,
                monkeypatch=patch,
                logs=logs,
            )
            found = outcome(
                mode,
                scene,
                job={**row.job, "command": row.command.format(gate=scene.gate)},
                arguments=row.arguments,
                before=row.before,
                meanwhile=row.meanwhile,
                has_ended=row.has_ended,
            )
        wrong[mode.name] = {name: value for name, value in vars(found).items() if value != vars(row.expected)[name]}
    assert wrong == {mode.name: {} for mode in modes}


def test_the_table_leaves_no_mode_out_without_saying_why() -> None:
    assert all(row.because for row in TABLE if row.modes != ALL)
