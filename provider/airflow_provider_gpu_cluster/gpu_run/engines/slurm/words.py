"""Slurm's own words for job states, reasons to wait and reasons to refuse, as data; see squeue(1)."""

from __future__ import annotations

from typing import NamedTuple

from ... import protocol

# The phase that a Slurm state belongs to.
WAITS = "waits"
RUNS = "runs"
ENDED = "ended"

REQUEUED = "Slurm put it back into its queue"


class State(NamedTuple):
    """
    The meaning of a Slurm word for a job's state.

    :param phase: WAITS, RUNS or ENDED.
    :param state: the final state of an attempt whose allocation ended so; None where only its own record can say it.
    :param reason: why it ended.
    :param message: the reason in words.
    """

    phase: str
    state: str | None = None
    reason: str | None = None
    message: str = ""


STATES = {
    "PENDING": State(WAITS),
    "CONFIGURING": State(WAITS),
    "REQUEUED": State(WAITS),
    "REQUEUE_FED": State(WAITS),
    "REQUEUE_HOLD": State(WAITS),
    "RESV_DEL_HOLD": State(WAITS),
    "SPECIAL_EXIT": State(WAITS),
    "RUNNING": State(RUNS),
    "COMPLETING": State(RUNS),
    "RESIZING": State(RUNS),
    "SIGNALING": State(RUNS),
    "STAGE_OUT": State(RUNS),
    "STOPPED": State(RUNS),
    "SUSPENDED": State(RUNS),
    "COMPLETED": State(ENDED),
    "FAILED": State(ENDED),
    "LAUNCH_FAILED": State(ENDED),
    "RECONFIG_FAIL": State(ENDED),
    "REVOKED": State(ENDED),
    "CANCELLED": State(ENDED, protocol.CANCELLED, protocol.REASON_CANCELLED, "it was cancelled in Slurm"),
    "TIMEOUT": State(ENDED, protocol.FAILED, protocol.TIME_LIMIT, "it ran longer than the time Slurm gave it"),
    "DEADLINE": State(ENDED, protocol.FAILED, protocol.TIME_LIMIT, "its deadline in Slurm passed"),
    "PREEMPTED": State(ENDED, protocol.FAILED, protocol.PREEMPTED, "Slurm stopped it to make room for another job"),
    "NODE_FAIL": State(ENDED, protocol.FAILED, protocol.NODE_FAILURE, "a node it ran on failed"),
    "BOOT_FAIL": State(ENDED, protocol.FAILED, protocol.NODE_FAILURE, "a node it was to run on did not boot"),
    "OUT_OF_MEMORY": State(ENDED, protocol.FAILED, protocol.OUT_OF_MEMORY, "Slurm ended it for its use of memory"),
}

# What Slurm writes to a script's output when it ends the script, and the state that it means, as it may say more there
# than in the state itself.
OUTPUT_SIGNS = (
    ("DUE TO TIME LIMIT", STATES["TIMEOUT"]),
    ("DUE TO PREEMPTION", STATES["PREEMPTED"]),
    ("DUE TO NODE FAILURE", STATES["NODE_FAIL"]),
    ("DUE TO UNCORRECTABLE MEMORY ERROR", STATES["NODE_FAIL"]),
    ("DUE TO JOB REQUEUE", State(ENDED, protocol.FAILED, protocol.PREEMPTED, REQUEUED)),
    ("Exceeded job memory limit", STATES["OUT_OF_MEMORY"]),
    ("exceeded memory limit", STATES["OUT_OF_MEMORY"]),
    ("oom-kill event", STATES["OUT_OF_MEMORY"]),
    ("oom_kill event", STATES["OUT_OF_MEMORY"]),
)
# The same for a job that somebody has cancelled; other words follow if it was Slurm itself.
CANCELLED = "CANCELLED AT"

# What srun prints when Slurm ends what it has started.
NODE_FAILED = "srun: error: Node failure on "
STEP_SIGNS = (CANCELLED, NODE_FAILED)

# Why a job waits. Unknown words are shown as they are.
PENDING_REASONS = {
    "None": "Slurm has not looked at it yet",
    "Priority": "jobs of higher priority wait before it",
    "Resources": "it is next, and the resources it asks for are in use",
    "Dependency": "a job it depends on has not ended",
    "DependencyNeverSatisfied": "a job it depends on has not ended as required; it will never start",
    "BeginTime": "its earliest start time has not come",
    "Cleaning": "Slurm still cleans up after its last run",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "its user holds it ('scontrol release' releases it)",
    "JobHoldMaxRequeue": "it was requeued too often, and is held",
    "launch failed requeued held": "its node could not start it, and Slurm holds it ('scontrol release' releases it)",
    "JobLaunchFailure": "it could not be started, because of a node or a wrong option perhaps",
    "Licenses": "it waits for a license",
    "NodeDown": "a node it asks for is down",
    "ReqNodeNotAvail": "a node it asks for is not available",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "the nodes it could run on are down, drained or reserved for others"
    ),
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs to run now",
    "PartitionConfig": "its partition can never run what it asks for; change the request or the partition",
    "PartitionNodeLimit": "it asks for more nodes than its partition allows, or than are up",
    "PartitionTimeLimit": "it asks for more time than its partition allows; lower time_limit",
    "Prolog": "a node is being prepared for it",
    "Reservation": "it waits for its reservation",
    "ReservationDeleted": "its reservation was deleted",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its QOS is not valid",
    "SchedDefer": "Slurm is configured to start nothing at submission",
    "BadConstraints": "no node meets its constraint",
    "InactiveLimit": "it has reached the system's InactiveLimit",
    "JobArrayTaskLimit": "its array already runs as many elements at once as it may",
    "MaxRequeue": "it was requeued too often",
    "AssociationJobLimit": "its account runs as many jobs as it may",
    "AssociationResourceLimit": "its account uses as much as it may",
    "AssociationTimeLimit": "its account has used up its time",
    "AccountNotAllowed": "its partition does not take this account",
    "QOSNotAllowed": "its account or partition does not take this QOS",
    "QOSJobLimit": "its QOS runs as many jobs as it may",
    "QOSResourceLimit": "its QOS uses as much as it may",
    "QOSTimeLimit": "its QOS has used up its time",
    "AssocMaxJobsLimit": "your account runs as many jobs as it may",
    "AssocGrpGRES": "your account uses as many GPUs as it may",
    "AssocGrpCpuLimit": "your account uses as many CPUs as it may",
    "AssocGrpMemLimit": "your account uses as much memory as it may",
    "AssocGrpGRESMinutes": "your account has used up its GPU time",
    "AssocGrpCPUMinutesLimit": "your account has used up its CPU time",
    "AssocGrpBillingMinutes": "your account has used up its budget",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as the QOS allows",
    "QOSMaxGRESPerUser": "you use as many GPUs as the QOS allows",
    "QOSMaxCpuPerUserLimit": "you use as many CPUs as the QOS allows",
    "QOSMaxMemoryPerUser": "you use as much memory as the QOS allows",
    "QOSMaxNodePerUserLimit": "you use as many nodes as the QOS allows",
    "QOSGrpGRES": "its QOS has all the GPUs it may have in use",
    "QOSGrpCpuLimit": "its QOS has all the CPUs it may have in use",
    "QOSGrpMemLimit": "its QOS has all the memory it may have in use",
    "QOSMaxWallDurationPerJobLimit": "it asks for more time than its QOS allows; lower time_limit",
    "QOSMaxMemoryPerJob": "it asks for more memory than its QOS allows in one job",
    "QOSMaxGRESPerJob": "it asks for more GPUs than its QOS allows in one job",
    "QOSMinGRES": "it asks for fewer GPUs than its QOS wants",
}

# Parts of sbatch messages: it takes no more jobs of this user now, but will take the same job later.
SUBMIT_LIMITS = (
    "MaxSubmitJob",
    "GrpSubmitJob",
    "Resource temporarily unavailable",
    "temporarily unable to accept job",
)
# This means the same, but only when no line of its own names another limit.
ANY_LIMIT = "Job violates accounting/QOS policy"

# Parts of the messages of Slurm's commands: it is unknown whether the request succeeded.
UNREACHABLE = (
    "Unable to contact slurm controller",
    "Unable to contact controller",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Transport endpoint is not connected",
    "Connection refused",
    "Connection timed out",
    "Connection reset",
    "No route to host",
    "Unexpected message received",
    "not responding",
    "in standby mode",
    "Munge encode failed",
    "Munge decode failed",
    "authentication error",
    "Problem talking to the database",
    "Unable to connect to database",
    "Communication connection failure",
    "Slurmctld is in the process of",
)
UNKNOWN_JOB = "Invalid job id"
NO_ACCOUNTING = "accounting storage is disabled"
NO_SUCH_NODES = ("Requested node configuration is not available", "Invalid generic resource")
NO_OTHER_NODES = ("Requested node configuration is not available", "Invalid node name")
# It takes a job in spite of these, and keeps it waiting.
NODES_NOT_NOW = ("Required node not available", "Requested partition configuration not available now")
# It takes no job now, but will again.
PARTITION_NOT_NOW = ("Required partition not available", "Requested reservation not usable now")
