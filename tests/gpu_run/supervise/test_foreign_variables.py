"""Which variables of Slurm and MPI a job and a scheduler's command see."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_gpu_cluster.gpu_run.supervise.foreign_variables import without_other_jobs, without_tasks

# What Slurm 22.05 gives to the script of `sbatch --nodes=1 --ntasks-per-node=1 --cpus-per-task=4 --gres=gpu:2`.
IN_A_SCRIPT = {
    "CUDA_VISIBLE_DEVICES": "2,3",
    "PATH": "/usr/bin:/bin",
    "SLURM_CLUSTER_NAME": "test",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "SLURM_CPUS_ON_NODE": "4",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_GPUS_ON_NODE": "2",
    "SLURM_GTIDS": "0",
    "SLURM_JOBID": "26",
    "SLURM_JOB_ID": "26",
    "SLURM_JOB_NAME": "job.1",
    "SLURM_JOB_NODELIST": "gpu1",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_LOCALID": "0",
    "SLURM_MEM_PER_NODE": "1024",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "gpu1",
    "SLURM_NPROCS": "1",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_SUBMIT_DIR": "/jobs/job",
    "SLURM_TASKS_PER_NODE": "1",
    "SLURM_TASK_PID": "22766",
    "SLURM_TOPOLOGY_ADDR": "gpu1",
}


def takes_itself_for_a_task(env: Mapping[str, str]) -> dict[str, bool]:
    """Return what frameworks conclude, by their own rules; the frameworks themselves are too large for a test."""
    return {
        "Lightning: SLURMEnvironment.detect": "SLURM_NTASKS" in env
        and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"),
        "Lightning: SLURMEnvironment.validate_settings, 2 devices": env.get("SLURM_NTASKS_PER_NODE", "2") != "2",
        "timm: is_distributed_env": int(env.get("SLURM_NTASKS", "1")) > 1,
        "JAX: SlurmCluster.is_env_present": all(
            name in env for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
        ),
        "fairseq, DETR: a rank": "SLURM_PROCID" in env,
        "Open MPI: ras/slurm": "SLURM_JOBID" in env,
        "MPICH: query_native_int": "SLURM_NODELIST" in env,
    }


def test_a_job_s_script_is_no_task_of_slurm() -> None:
    assert any(takes_itself_for_a_task(IN_A_SCRIPT).values())
    seen = without_tasks(IN_A_SCRIPT)
    assert not [rule for rule, holds in takes_itself_for_a_task(seen).items() if holds]
    # What srun, sbatch and people need in it is there.
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_CPUS_PER_TASK", "SLURM_CONF"):
        assert seen[name] == IN_A_SCRIPT[name]


def test_a_login_in_a_job_says_nothing_of_it() -> None:
    login = {
        **IN_A_SCRIPT,
        **dict.fromkeys(
            ("SBATCH_GPUS", "SBATCH_ARRAY_INX", "SRUN_DEBUG", "SALLOC_PARTITION", "SQUEUE_FORMAT", "SACCT_FORMAT"), "x"
        ),
        **dict.fromkeys(("SLURM_TIME_FORMAT", "SLURM_CLUSTERS", "SLURMD_NODENAME", "PMI_RANK", "PMIX_RANK"), "x"),
        **dict.fromkeys(("OMPI_COMM_WORLD_RANK", "SLURM_STEP_ID", "SINFO_FORMAT", "SCANCEL_NAME"), "x"),
        "OMPI_MCA_btl": "tcp",
        "SLURM_JWT": "token",
        "PIP_INDEX_URL": "x",
    }
    assert without_other_jobs(login) == {
        "CUDA_VISIBLE_DEVICES": "2,3",
        "PATH": "/usr/bin:/bin",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "SLURM_JWT": "token",
        "OMPI_MCA_btl": "tcp",
        "PIP_INDEX_URL": "x",
    }
