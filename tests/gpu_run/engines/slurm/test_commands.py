"""Slurm's commands as they are built, and what real ones have answered."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.engines.slurm import commands, words

SPEC = {"gpus": 2, "priority": "normal"}


def build(
    spec: dict[str, object] | None = None, settings: dict[str, object] | None = None, **more: object
) -> list[str]:
    named: dict[str, object] = {
        "name": "job.1",
        "comment": "c",
        "folder": "/jobs/job",
        "output": "/jobs/job/log",
        "gpu_type": None,
    }
    named["environment"] = ["PATH", "HOME", "AWS_SECRET_ACCESS_KEY", "PIP_INDEX_URL"]
    wanted: Any = {**SPEC, **(spec or {})}
    return commands.sbatch(wanted, settings or {}, **{**named, **more})  # type: ignore[arg-type]


def test_sbatch_asks_for_what_the_job_wants() -> None:
    assert build() == [
        "sbatch",
        "--parsable",
        "--job-name=job.1",
        "--comment=c",
        "--chdir=/jobs/job",
        "--output=/jobs/job/log",
        "--open-mode=append",
        "--export=HOME,PATH,PIP_INDEX_URL",
        "--no-requeue",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--gres=gpu:2",
    ]


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        ({"cpus": 8}, "--cpus-per-task=8"),
        # Slurm's limits are behind the supervisor's, which says why a job ended.
        ({"memory_bytes": 32 << 30}, f"--mem={32 * 1024 + 128}M"),
        ({"time_limit_s": 3600, "grace_s": 10}, "--time=63"),
        ({"nodes": 4}, "--nodes=4"),
        ({"priority": "low"}, "--nice=1000"),
        ({"partition": "long"}, "--partition=long"),
        ({"sbatch_options": ["--exclude=gpu7"]}, "--exclude=gpu7"),
    ],
)
def test_sbatch_takes_each_wish(spec: dict[str, object], option: str) -> None:
    assert option in build(spec)


def test_sbatch_takes_the_cluster_s_wishes_where_the_job_has_none() -> None:
    settings: dict[str, object] = {"partition": "gpu", "account": "a", "qos": "q", "constraint": "c"}
    settings["sbatch_options"] = ["--x=1"]
    command = build({"qos": "mine", "sbatch_options": ["--x=2"]}, settings)
    assert command[-6:] == ["--partition=gpu", "--account=a", "--qos=mine", "--constraint=c", "--x=1", "--x=2"]


def test_sbatch_of_an_array_of_typed_gpus() -> None:
    command = build(gpu_type="a100", elements=range(100))
    assert "--gres=gpu:a100:2" in command
    assert "--array=0-99" in command
    assert "--array=3,5-6,9" in build(elements=[3, 5, 6, 9])


def test_script_quotes_its_paths() -> None:
    script = commands.script("/opt/my python", "/r/x.pyz", "/r/a b", output="/r/log", is_array=False)
    first, trap, last = script.splitlines()
    assert (first, last) == ("#!/bin/sh", "exec '/opt/my python' -I -S /r/x.pyz supervise-slurm '/r/a b'")
    assert trap.startswith("trap '' 1 3 10 12 14 ")
    assert commands.output_option("/home/100%/x", is_array=False) == "/home/100%%/x"
    assert commands.output_option("/home/100%/x", is_array=True) == "/home/100%%/x.%a"


@pytest.mark.parametrize(
    ("options", "more", "last"),
    [
        (["--signal=B:USR1@60"], {}, "--signal=B:10@60"),
        (["--signal", "b:SIGusr1"], {}, "--signal=B:10@60"),
        # A job on one node has no steps that could hear it; on two, srun runs it on both.
        (["--signal=USR1@90"], {}, "--signal=B:10@90"),
        (["--signal=USR1@90"], {"nodes": 2}, "--signal=10@90"),
        (["--signal=R:HUP@90"], {"nodes": 2}, "--signal=R:1@90"),
        (["--signal=RB:12@90"], {"nodes": 2}, "--signal=RB:12@90"),
        # What would end the supervisor has a stand-in.
        (["--signal=B:TERM@60"], {}, f"--signal=B:{int(signal.SIGRTMIN) + 16}@60"),
        (["--signal=KILL@60"], {"nodes": 2}, "--signal=9@60"),
        # Before the job's own limit, not before Slurm's, which is two minutes and the grace behind it.
        (["--signal=B:USR1@60"], {"time_limit_s": 3600, "grace_s": 10}, "--signal=B:10@240"),
        (["--signal=B:USR1@60", "--time=90"], {"time_limit_s": 3600}, "--signal=B:10@60"),
        (["--signal=B:USR1@65000"], {"time_limit_s": 86400, "grace_s": 0}, "--signal=B:10@65120"),
        (["--signal=B:USR1@65500"], {"time_limit_s": 86400}, "--signal=B:10@65535"),
        # sbatch says what is wrong with these.
        (["--signal=B:NONSENSE@60"], {}, "--signal=B:NONSENSE@60"),
        # What a job asks for in its own words is the supervisor's, except where only Slurm knows.
        ([], {"warn_before_s": 90.5, "time_limit_s": 3600}, f"--signal=B:{int(signal.SIGRTMIN) + 15}@91"),
        ([], {"warn_before_s": 1e6, "nodes": 2}, f"--signal=B:{int(signal.SIGRTMIN) + 15}@65535"),
        (["--signal=B:USR2@60"], {"warn_before_s": 90}, "--signal=B:12@60"),
        (["--signal=NONSENSE"], {"warn_before_s": 90}, "--signal=NONSENSE"),
        (["--signal=B:USR1@soon"], {}, "--signal=B:USR1@soon"),
    ],
)
def test_a_warning_comes_to_the_supervisor_and_in_time(options: list[str], more: dict[str, object], last: str) -> None:
    assert build({"sbatch_options": options, **more})[-1] == last


def test_slurm_never_sees_a_path_with_a_backslash() -> None:
    assert commands.output_option("/r/a\\b/log", is_array=True) == "/dev/null"
    script = commands.script("python3", "/r/a\\b/x.pyz", "/r/a\\b", output="/r/a\\b/log", is_array=True)
    assert script.endswith(""" supervise-slurm '/r/a\\b' >> '/r/a\\b/log'."$SLURM_ARRAY_TASK_ID" 2>&1\n""")


@pytest.mark.parametrize(
    ("output", "job"),
    [
        ("17\n", "17"),
        ("17;cluster\n", "17"),
        ("welcome\n18\n", "18"),
        ("Submitted batch job 17\n", "17"),
        ("Estimated cost: 12 units\nSubmitted batch job 17 on cluster big\nBye\n", "17"),
        ("", None),
        ("job 17 was taken\n", None),
        # One of them is the year, perhaps.
        ("2026\n17\n", None),
    ],
)
def test_the_id_of_a_submitted_job(output: str, job: str | None) -> None:
    assert commands.submitted_id(output) == job


QUEUE = """\
21_0\x1fRUNNING\x1fNone\x1f2026-11-26T19:40:27\x1f2026-11-27T19:40:27\x1fgpu[1-2]\x1fdag-task.1\x1f/home/me/ml jobs
21_1\x1fPENDING\x1fResources\x1f2026-11-26T20:40:27\x1fN/A\x1f\x1fdag-task.1\x1f/home/me/ml jobs
22\x1fPENDING\x1fReqNodeNotAvail, UnavailableNodes:gpu1\x1fN/A\x1fN/A\x1f\x1fother name\x1f/x
a line of somebody's login script
"""


def test_the_queue() -> None:
    first, second, third = commands.queue_rows(QUEUE)
    assert (first.id, first.state, first.nodes, first.name, first.folder) == (
        "21_0",
        "RUNNING",
        "gpu[1-2]",
        "dag-task.1",
        "/home/me/ml jobs",
    )
    assert second.start is not None
    assert time.strftime("%H:%M:%S", time.localtime(second.start)) == "20:40:27"
    assert (third.reason, third.start, third.end) == ("ReqNodeNotAvail, UnavailableNodes:gpu1", None, None)


ACCOUNTING = """\
12|PREEMPTED|None|2026-11-26T19:40:27|2026-11-26T19:41:00|gpu1|job.1|/jobs/job
12|CANCELLED by 1000|None|2026-11-26T19:42:27|2026-11-26T19:43:00|None assigned|job.1|/jobs/job
13|NODE_FAIL|None|Unknown|Unknown|gpu2|job.2|/jobs/a|b
"""


def test_the_accounting() -> None:
    first, second, third = commands.accounting_rows(ACCOUNTING)
    assert (first.state, first.nodes) == ("PREEMPTED", "gpu1")
    assert (second.state, second.nodes) == ("CANCELLED", "")
    assert (third.state, third.start, third.folder) == ("NODE_FAIL", None, "/jobs/a|b")


@pytest.mark.parametrize(
    "errors",
    [
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
        "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)\n",
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
        "and/or time limits)\n",
        "sbatch: error: Batch job submission failed: Resource temporarily unavailable\n",
    ],
)
def test_a_submit_limit(errors: str) -> None:
    assert commands.is_submit_limit(errors)
    assert not commands.is_unreachable(errors)


@pytest.mark.parametrize(
    "errors",
    [
        "sbatch: error: QOSMaxGRESPerJob\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
        "policy (job submit limit, user's size and/or time limits)\n",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available\n",
        "sbatch: error: invalid partition specified: nope\n",
    ],
)
def test_a_refusal_for_good(errors: str) -> None:
    assert not commands.is_submit_limit(errors)
    assert not commands.is_unreachable(errors)


@pytest.mark.parametrize(
    "errors",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)\n",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n",
        "sacct: error: Problem talking to the database: Connection refused\n",
        "squeue: error: If munged is up, restart with --num-threads=10\nsqueue: error: Munge encode failed: Failed to "
        'access "/run/munge/munge.socket.2": No such file or directory (Did you start munged?)\n',
    ],
)
def test_an_unreachable_slurm(errors: str) -> None:
    assert commands.is_unreachable(errors)
    assert not commands.is_submit_limit(errors)


def test_what_a_command_says_in_a_line() -> None:
    errors = "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: No\n"
    assert commands.said(errors) == "invalid partition specified: nope; Batch job submission failed: No"


DETAILS = (
    "JobId=1 JobName=x UserId=root(0) Priority=42 Nice=0 Account=(null) JobState=COMPLETED Reason=None "
    "Requeue=0 Restarts=0 BatchFlag=1 ExitCode=0:0 MinJobAge               = 300 sec\n"
)


def test_details() -> None:
    assert commands.detail(DETAILS, "JobState") == "COMPLETED"
    assert commands.detail(DETAILS, "MinJobAge") == "300"
    assert commands.detail(DETAILS, "State") is None


def line(*fields: str) -> str:
    return "".join(field.ljust(width) for field, width in zip(fields, (128, 32, 256, 256), strict=True))


def test_the_gpus_of_nodes() -> None:
    output = "\n".join(
        [
            line("gpu1", "mixed", "gpu:a100:4(S:0-1)", "gpu:a100:3(IDX:0-2)"),
            line("gpu1", "mixed", "gpu:a100:4(S:0-1)", "gpu:a100:3(IDX:0-2)"),
            line("gpu2", "down*", "gpu:h100:2,gpu:v100:1", "gpu:h100:0(IDX:N/A),gpu:v100:0(IDX:N/A)"),
            line("gpu3", "idle", "gpu:8,shard:16", "gpu:2(IDX:0-1),shard:0"),
            line("login", "idle", "(null)", "gpu:0"),
            line("gpu4", "idle", "gpu:3090:4", "gpu:3090:1(IDX:2)"),
            line("gpu5", "idle", "gpu:a100-80gb:8(S:0-1),gpu:a100_3g.20gb:2,mps:400", "gpu:a100-80gb:2(IDX:0,2),mps:7"),
            line("gpu6", "idle", "gpu:tesla,gpu:1g.5gb:7(S:0)", "gpu:tesla:0(IDX:N/A),gpu:1g.5gb:3(IDX:0-1,5)"),
        ]
    )
    assert commands.node_gpus(output) == [
        ("gpu1", "a100", 4, 3, True),
        ("gpu2", "h100", 2, 0, False),
        ("gpu2", "v100", 1, 0, False),
        ("gpu3", "gpu", 8, 2, True),
        ("gpu4", "3090", 4, 1, True),
        ("gpu5", "a100-80gb", 8, 2, True),
        ("gpu5", "a100_3g.20gb", 2, 0, True),
        ("gpu6", "tesla", 1, 0, True),
        ("gpu6", "1g.5gb", 7, 3, True),
    ]


def test_waiting_gpus() -> None:
    output = "1\x1fgres:gpu:2\n2\x1fgres:gpu:a100:4\n1\x1fN/A\n3\x1fgres:gpu\n1\x1fgres/gpu:a100:1,gres/tmp:5\n"
    output += "1\x1fgres:gpu:3090:4\n1\x1fgres/gpu:3090=2\n1\x1fgres/gpu=3\n2\x1fgres:gpu:tesla\n1\x1fgres:mps:40\n"
    assert commands.pending_gpus(output) == [2, 8, 0, 3, 1, 4, 2, 3, 2, 0]


def test_every_end_by_slurm_s_word_is_one_of_ours() -> None:
    for state in words.STATES.values():
        if state.state is not None:
            assert state.phase == words.ENDED
            assert state.state in protocol.FINAL_STATES
            assert state.reason in protocol.REASONS
            assert state.message
