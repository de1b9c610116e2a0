"""What both ends of the SSH channel agree on: verbs, states, reasons, error codes, and the framing of a reply.

One operation is one process on the cluster. It reads one line of JSON (the request; empty lines before it count for
nothing) and, where the verb says so, a stream of files; it answers with :data:`REPLY_MARK` on a line of its own, one
line of JSON, and, where the verb says so, bytes. The reader skips whatever a login shell prints before the mark. Some
verbs go on in both directions after their reply: ``watch`` (:mod:`.watch.server`), ``fill``, and, where inputs are
needed, ``stage`` and ``submit`` (:mod:`.staging.receiving`).

The types in the modules here describe requests, replies, events and records. They are imported only for type checking,
as making such classes would take time at the start of every process.
"""

REPLY_MARK = b"\x1e gpu-run 1 \x1e"

VERBS = (
    "install-check",
    "capacity",
    "overview",
    "totals",
    "stage",
    "fill",
    "submit",
    "resubmit",
    "status",
    "watch",
    "logs",
    "cancel",
    "jobs",
    "interrupt",
    "told",
    "send",
    "list-outputs",
    "read-output",
    "send-output",
    "read-metrics",
    "list-elements",
    "look-on",
    "gc",
    "audit",
    "usage",
    "read-log",
    "copy-log",
    "search-log",
    "read-series",
    "describe-job",
    "read-ledger",
    "appraise",
    "place",
    "renew",
    "carry-out",
    "carry-in",
)

# The verbs with which somebody looks at a job, or ends it. They need no room on the disk, and the job may run on while
# the disk is full or somebody corrects a permission. So for them no failure of the disk is final.
LOOKS = ("status", "watch", "logs", "cancel", "told", "read-log", "copy-log", "search-log")

# The verbs that may be called over a `watch`: they answer soon, change nothing about any job, and do not count as
# somebody who asks for one.
READS = (
    "capacity",
    "overview",
    "totals",
    "jobs",
    "audit",
    "usage",
    "look-on",
    "read-ledger",
    "describe-job",
    "read-log",
    "copy-log",
    "search-log",
    "read-series",
    "list-outputs",
    "read-output",
    "read-metrics",
    "list-elements",
    "appraise",
)

# All that may be called over a `watch`. The last two change which cluster of a pool has a job; each may be asked twice.
CALLS = (*READS, "place", "renew")

# States of a job. UNKNOWN means that the state cannot be determined now; it is never an end.
QUEUED = "QUEUED"
RUNNING = "RUNNING"
SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
CANCELLED = "CANCELLED"
LOST = "LOST"
UNKNOWN = "UNKNOWN"
FINAL_STATES = (SUCCEEDED, FAILED, CANCELLED, LOST)

# Why a job ended badly.
USER_ERROR = "user_error"
OUT_OF_MEMORY = "out_of_memory"
GPU_OUT_OF_MEMORY = "gpu_out_of_memory"
TIME_LIMIT = "time_limit"
PREEMPTED = "preempted"
NODE_FAILURE = "node_failure"
DISK_FULL = "disk_full"
LAUNCH_FAILED = "launch_failed"
REASON_LOST = "lost"
REASON_CANCELLED = "cancelled"
ORPHANED = "orphaned"
HANG = "hang"
CHECKPOINTED = "checkpointed"
IDLE = "idle"
REASONS = (
    USER_ERROR,
    OUT_OF_MEMORY,
    GPU_OUT_OF_MEMORY,
    TIME_LIMIT,
    PREEMPTED,
    NODE_FAILURE,
    DISK_FULL,
    LAUNCH_FAILED,
    REASON_LOST,
    REASON_CANCELLED,
    ORPHANED,
    HANG,
    CHECKPOINTED,
    IDLE,
)

# The reasons after which a job can go on in a next attempt by itself.
RECOVERABLE = (
    PREEMPTED,
    NODE_FAILURE,
    REASON_LOST,
    CHECKPOINTED,
    TIME_LIMIT,
    OUT_OF_MEMORY,
    GPU_OUT_OF_MEMORY,
    DISK_FULL,
    USER_ERROR,
    HANG,
)
# How often it does so, if its user says nothing else.
DEFAULT_RECOVER = {PREEMPTED: 20, NODE_FAILURE: 3, REASON_LOST: 2, CHECKPOINTED: 1000}
# The budget of a time limit that lasts as long as the job saves something.
PROGRESS = "progress"

# How long a job may take to end after it was asked to, in seconds, if neither it nor its connection says so.
GRACE_S = 30.0

# Job priorities, in the order in which they are served.
PRIORITIES = ("high", "normal", "low")

# Codes of an error reply. Each becomes one exception class on the Airflow side.
BAD_REQUEST = "bad_request"
PYTHON_TOO_OLD = "python_too_old"
ROOT_NOT_WRITABLE = "root_not_writable"
ROOT_NOT_SAFE = "root_not_safe"
NO_SPACE = "no_space"
SOURCE_ERROR = "source_error"
CHECKSUM_MISMATCH = "checksum_mismatch"
ENTRY_SCRIPT_MISSING = "entry_script_missing"
NOT_STAGED = "not_staged"
NOT_ENOUGH_GPUS = "not_enough_gpus"
OVER_BUDGET = "over_budget"
LAUNCH_REFUSED = "launch_refused"
GPUS_UNAVAILABLE = "gpus_unavailable"
JOB_CONFLICT = "job_conflict"
NO_SUCH_JOB = "no_such_job"
PLACEMENT_OUTRANKED = "outranked"
PLACEMENT_EXPIRED = "expired"
UNSAFE_OUTPUT = "unsafe_output"
PASSING_FAULT = "passing_fault"
INTERNAL = "internal"

# The content of a file up to this size is sent in one piece, and never asked for in part.
WHOLE_BYTES = 1 << 20

# Exit codes without a reply: of the program, and of the line of shell that starts it (see connection/command_line.py).
EXIT_PROGRAM_UNSAFE = 94
EXIT_NO_ROOT = 95
EXIT_REQUEST_CUT = 96
EXIT_PROGRAM_MISSING = 97
EXIT_NO_PYTHON = 98
