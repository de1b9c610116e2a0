"""Slurm's limits on the number of jobs, as real ones have shown them."""

from __future__ import annotations

import pytest

from airflow_provider_gpu_cluster.gpu_run.engines.slurm import commands, limits

# Of Slurm 22.05, without what is not asked about.
SHOWN = """\
Current Association Manager state
Association Records
ClusterName=test Account=root UserName= Partition= ID=1 ParentAccount= DefAssoc=No GrpJobs=N(0) GrpSubmitJobs=N(2) MaxJobs= MaxSubmitJobs=
ClusterName=test Account=root UserName=ann(7) Partition= ID=2 ParentAccount= DefAssoc=Yes GrpSubmitJobs=N(0) MaxJobs= MaxSubmitJobs=5(1)
ClusterName=test Account=parent UserName= Partition= ID=3 ParentAccount=root(1) DefAssoc=No GrpSubmitJobs=4(3) MaxSubmitJobs=
ClusterName=test Account=child UserName= Partition= ID=4 ParentAccount=parent(3) DefAssoc=No GrpSubmitJobs=9(1) MaxSubmitJobs=
ClusterName=test Account=child UserName=ann(7) Partition= ID=5 ParentAccount= DefAssoc=No GrpSubmitJobs=N(1) MaxSubmitJobs=0(0)
QOS Records
QOS=normal(1) GrpJobs=N(0) GrpSubmitJobs=N(0) Account Limits= root={MaxSubmitJobsPA=N(0)} User Limits= 7={MaxSubmitJobsPU=N(0) MaxTRESPU=cpu=N(0)}
QOS=three(3) GrpJobs=N(0) GrpSubmitJobs=9(4) Account Limits= root={MaxSubmitJobsPA=8(8)} User Limits= 7={MaxSubmitJobsPU=3(2) MaxTRESPU=cpu=N(0)}
QOS=none(4) GrpJobs=N(0) GrpSubmitJobs=N(0) Account Limits= No Accounts User Limits= 7={MaxSubmitJobsPU=0(0)}
"""  # noqa: E501


@pytest.mark.parametrize(
    ("errors", "account", "qualities", "found"),
    [
        ("QOSMaxSubmitJobPerUserLimit", None, ["three"], [("MaxSubmitJobsPerUser=3", "the QOS three", 1)]),
        ("QOSMaxSubmitJobPerUserLimit", None, ["none"], [("MaxSubmitJobsPerUser=0", "the QOS none", 0)]),
        # Which QOS it is, is not known, and they differ.
        ("QOSMaxSubmitJobPerUserLimit", None, [], []),
        ("QOSGrpSubmitJobsLimit", None, [], [("GrpSubmitJobs=9", "the QOS three", 5)]),
        ("QOSMaxSubmitJobPerAccountLimit", None, ["three"], [("MaxSubmitJobsPerAccount=8", "the QOS three", 0)]),
        ("AssocMaxSubmitJobLimit", None, [], [("MaxSubmitJobs=5", "your association with the account root", 4)]),
        ("AssocMaxSubmitJobLimit", "child", [], [("MaxSubmitJobs=0", "your association with the account child", 0)]),
        (
            "AssocGrpSubmitJobsLimit",
            "child",
            [],
            [("GrpSubmitJobs=9", "the account child", 8), ("GrpSubmitJobs=4", "the account parent", 1)],
        ),
        ("QOSMaxGRESPerUser", None, ["three"], []),
    ],
)
def test_the_limits_that_sbatch_means(
    errors: str, account: str | None, qualities: list[str], found: list[tuple[str, str, int]]
) -> None:
    reached = limits.reached(f"sbatch: error: {errors}\n", SHOWN, account=account, qualities=qualities)
    assert [(limit.name, limit.where, limit.room) for limit in reached] == found


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ("MaxArraySize            = 1001\nMaxJobCount             = 10000\n", 1001),
        ("MaxArraySize            = 1001\nMaxJobCount             = 500\n", 499),
        ("MaxArraySize = 1001\nMaxJobCount = 10000\nSchedulerParameters     = bf_interval=1,max_array_tasks=64\n", 64),
        # Arrays are switched off.
        ("MaxArraySize            = 0\nMaxJobCount             = 10000\n", 1),
        ("", 1000),
    ],
)
def test_how_large_an_array_may_be(config: str, most: int) -> None:
    assert commands.largest_array(config) == most


PARTITIONS = """\
PartitionName=gpu AllowQos=ALL Default=YES QoS=N/A DefaultTime=NONE
PartitionName=short AllowQos=ALL Default=NO QoS=three DefaultTime=NONE
"""


@pytest.mark.parametrize(("partition", "found"), [(None, []), ("short", ["three"]), ("gone", [])])
def test_the_qos_of_a_partition(partition: str | None, found: list[str]) -> None:
    assert commands.qos_of_partition(PARTITIONS, partition) == found


@pytest.mark.parametrize(
    ("options", "asked"),
    [([], "own"), (["--qos=q"], "q"), (["--qos", "q"], "q"), (["-qq"], "q"), (["-q", "q", "--quiet"], "q")],
)
def test_what_a_job_asks_for_in_free_options(options: list[str], asked: str) -> None:
    spec = {"gpus": 1, "priority": "normal", "qos": "own", "sbatch_options": options}
    assert commands.asked(spec, {}, "qos") == asked  # type: ignore[arg-type]
