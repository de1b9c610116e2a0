"""Build Slurm's commands, and parse their answers: nothing here runs anything."""

from __future__ import annotations

import math
import re
import shlex
import time
from typing import TYPE_CHECKING, Iterable, NamedTuple, Sequence

from . import words

if TYPE_CHECKING:
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec

# Separates fields, since names and folders may contain any other character.
SEPARATOR = "\x1f"
_QUEUE_FIELDS = "%i %T %r %S %e %N %j %Z"
_ACCOUNTING_FIELDS = "JobID,State,Reason,Start,End,NodeList,JobName,WorkDir"
_ACCOUNTING_SEPARATOR = "|"
# Slurm's own limits are wider than the supervisor's, so that the supervisor is the one to say why a job ended.
_MORE_TIME_S = 120.0
_MORE_MEMORY = 128 << 20
_LOW_NICE = 1000
_EXPORTED = (
    *("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TZ", "USER"),
    # What a login's modules and environments set together with PATH: programs of that PATH need it.
    *("LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "PKG_CONFIG_PATH"),
    *("CMAKE_PREFIX_PATH", "MANPATH", "INFOPATH", "PYTHONPATH", "R_LIBS", "R_LIBS_USER", "CUDA_HOME", "CUDA_PATH"),
    *("MODULEPATH", "MODULESHOME", "LOADEDMODULES", "_LMFILES_", "_CE_CONDA", "_CE_M"),
)
# The same, and the variables that an installation of packages needs.
_EXPORTED_PREFIXES = (
    *("CONDA_", "MAMBA_", "MODULES_", "LMOD_", "__LMOD_", "__MODULES_"),
    *("PIP_", "UV_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
_NODE_WIDTHS = (128, 32, 256, 256)


class Row(NamedTuple):
    """
    A job as Slurm lists it.

    :param id: ``12``, or ``12_3`` for an element of an array.
    :param state: a word of :data:`.words.STATES`, or an unknown one.
    :param reason: why it waits, or how it ended.
    :param start: when it started or is expected to, in seconds since the epoch; None when that is unknown.
    :param end: when it ended, or its latest end.
    :param nodes: such as ``gpu[1-2]``; empty while it has none.
    :param name: see :func:`sbatch`.
    :param folder: likewise.
    """

    id: str
    state: str
    reason: str
    start: float | None
    end: float | None
    nodes: str
    name: str
    folder: str


def sbatch(
    spec: Spec,
    settings: Settings,
    *,
    name: str,
    comment: str,
    folder: str,
    output: str,
    environment: Iterable[str],
    gpu_type: str | None,
    elements: int | None = None,
) -> list[str]:
    """
    Return the command that submits a script, which it reads from standard input.

    :param spec: what the job asks for.
    :param settings: of the cluster; the job's own values come first.
    :param name: name of the job. Together with ``folder`` it identifies the job among all jobs of its user.
    :param folder: where its script starts.
    :param output: the path for the script's own output.
    :param environment: names of this process's variables.
    :param gpu_type: what Slurm calls the GPUs; None for any.
    :param elements: how many elements the job has as an array; None when it is not an array.
    """
    nodes = spec.get("nodes") or 1
    gres = "gpu:{}".format(spec["gpus"]) if gpu_type is None else "gpu:{}:{}".format(gpu_type, spec["gpus"])
    command = [
        "sbatch",
        "--parsable",
        f"--job-name={name}",
        f"--comment={comment}",
        f"--chdir={folder}",
        f"--output={output}",
        "--open-mode=append",
        f"--export={','.join(exported(environment))}",
        "--no-requeue",
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        f"--gres={gres}",
    ]
    if elements is not None:
        command.append(f"--array=0-{elements - 1}")
    if spec.get("cpus"):
        command.append("--cpus-per-task={}".format(spec["cpus"]))
    memory, time_limit = spec.get("memory_bytes"), spec.get("time_limit_s")
    if memory:
        command.append(f"--mem={math.ceil((memory + _MORE_MEMORY) / 2**20)}M")
    if time_limit:
        seconds = time_limit + spec.get("grace_s", 0.0) + _MORE_TIME_S
        command.append(f"--time={math.ceil(seconds / 60)}")
    if spec.get("priority") == "low":
        command.append(f"--nice={_LOW_NICE}")
    for option in ("partition", "account", "qos", "constraint"):
        value = spec.get(option) or settings.get(option)
        if value:
            command.append(f"--{option}={value}")
    return command + list(settings.get("sbatch_options") or ()) + list(spec.get("sbatch_options") or ())


def exported(names: Iterable[str]) -> list[str]:
    """
    Return the variables that Slurm passes on to the job: none of the login's secrets, but enough to find programs.

    With NONE, Slurm would start a login shell on the node to read the user's profile, which takes as long as the
    profile does, and fails where it fails.
    """
    return sorted(name for name in names if name in _EXPORTED or name.upper().startswith(_EXPORTED_PREFIXES))


def script(python: str, program: str, path: str) -> str:
    """Return the script of a job, which becomes the supervisor of the attempts at ``path``."""
    line = " ".join(shlex.quote(word) for word in (python, "-I", "-S", program, "supervise-slurm", path))
    return f"#!/bin/sh\nexec {line}\n"


def pattern(path: str) -> str:
    """Return a path for options in which Slurm replaces patterns, with its special characters escaped."""
    return path.replace("%", "%%")


def submitted_id(output: str) -> str | None:
    """Return the job id that ``sbatch --parsable`` has printed; None when there is none."""
    for line in output.splitlines():
        match = re.match(r"^(\d+)(;.*)?$", line.strip())
        if match:
            return match.group(1)
    return None


def queue(user: str, name: str | None = None) -> list[str]:
    """
    Return the command that lists the user's jobs that the controller knows, including ended ones.

    :param name: of the only job that is wanted.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={user}"]
    if name is not None:
        command.append(f"--name={name}")
    return [*command, "--format=" + _QUEUE_FIELDS.replace(" ", SEPARATOR)]


def queue_rows(output: str) -> list[Row]:
    """Parse the output of :func:`queue`."""
    return _rows(output, SEPARATOR)


def accounting(user: str, since: float, name: str | None = None) -> list[str]:
    """
    Return the command that lists a user's jobs from the accounting, with a line for each run of a job.

    :param since: in seconds since the epoch.
    """
    command = ["sacct", "--noheader", "--allocations", "--duplicates", "--parsable2", f"--user={user}"]
    if name is not None:
        command.append(f"--name={name}")
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
    return [*command, f"--starttime={start}", f"--format={_ACCOUNTING_FIELDS}"]


def accounting_rows(output: str) -> list[Row]:
    """Parse the output of :func:`accounting`."""
    return _rows(output, _ACCOUNTING_SEPARATOR)


def _rows(output: str, separator: str) -> list[Row]:
    rows = []
    for line in output.splitlines():
        # The folder may contain a separator, and comes last.
        fields = line.split(separator, 7)
        if len(fields) == 8:
            job, state, reason, start, end, nodes, name, folder = fields
            # "CANCELLED by 1000", and in some versions "RUNNING+".
            state = re.split(r"[ +]", state, maxsplit=1)[0]
            nodes = "" if nodes in ("None assigned", "(null)", "Unknown") else nodes
            rows.append(Row(job, state, reason, seconds(start), seconds(end), nodes, name, folder))
    return rows


def seconds(text: str) -> float | None:
    """Return a Slurm time, which is local time, in seconds since the epoch; None when the text is not a time."""
    match = re.match(r"^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)$", text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    return time.mktime((year, month, day, hour, minute, second, 0, 0, -1))


def details(job: str) -> list[str]:
    """Return the command that asks the controller about one job."""
    return ["scontrol", "--oneliner", "show", "job", job]


def detail(output: str, name: str) -> str | None:
    """Return one value from the output of :func:`details` or ``scontrol show config``."""
    match = re.search(rf"(?:^|\s){name}\s*=\s*(\S+)", output)
    return match.group(1) if match else None


def cancel(jobs: Sequence[str]) -> list[str]:
    """Return the command that ends jobs."""
    return ["scancel", *jobs]


def said(errors: str) -> str:
    """Return a command's messages in one line, without its name in front."""
    lines = [re.sub(r"^\w+: (?:error: )?", "", line.strip()) for line in errors.splitlines()]
    return "; ".join(line for line in lines if line)


def is_unreachable(errors: str) -> bool:
    """Return whether a command failed because it could not reach Slurm."""
    return any(sign in errors for sign in words.UNREACHABLE)


def is_submit_limit(errors: str) -> bool:
    """Return whether sbatch was refused only because there are too many jobs at the moment."""
    if any(sign in errors for sign in words.SUBMIT_LIMITS):
        return True
    lines = [line for line in errors.splitlines() if line.strip()]
    return len(lines) == 1 and words.ANY_LIMIT in lines[0]


# -- GPUs ---------------------------------------------------------------------------------------------------------


class NodeGpus(NamedTuple):
    """
    GPUs of one kind on one node.

    :param used: how many of them are in use by jobs.
    :param is_up: whether the node takes jobs.
    """

    node: str
    type: str
    total: int
    used: int
    is_up: bool


def nodes(partition: str | None) -> list[str]:
    """Return the command that lists the nodes and their GPUs."""
    widths = ",".join(
        f"{name}:{width}" for name, width in zip(("NodeList", "StateLong", "Gres", "GresUsed"), _NODE_WIDTHS)
    )
    command = ["sinfo", "--noheader", "--Node", f"--Format={widths}"]
    return command if partition is None else [*command, f"--partition={partition}"]


def node_gpus(output: str) -> list[NodeGpus]:
    """Parse the output of :func:`nodes`."""
    found: dict[tuple[str, str], NodeGpus] = {}
    for line in output.splitlines():
        fields = []
        for width in _NODE_WIDTHS:
            fields.append(line[:width].strip())
            line = line[width:]
        node, state, gres, used = fields
        in_use = dict(_gpus(used))
        is_up = re.match(r"(idle|mixed|allocated|completing|planned)[+~#]?$", state) is not None
        for kind, count in _gpus(gres):
            # Slurm lists a node once for each of its partitions.
            found[(node, kind)] = NodeGpus(node, kind, count, in_use.get(kind, 0), is_up)
    return list(found.values())


def _gpus(gres: str) -> list[tuple[str, int]]:
    """Parse a text such as ``gpu:a100:4(S:0-1),gpu:2``."""
    kinds: dict[str, int] = {}
    for match in re.finditer(r"(?:^|,)(?:gres[:/])?gpu(?::([A-Za-z][^:(),]*))?:(\d+)", re.sub(r"\([^)]*\)", "", gres)):
        kind = match.group(1) or "gpu"
        kinds[kind] = kinds.get(kind, 0) + int(match.group(2))
    return list(kinds.items())


def pending() -> list[str]:
    """Return the command that lists, for each waiting job, what it asks for on each of its nodes."""
    return ["squeue", "--noheader", "--array", "--states=PENDING", "--format=%D" + SEPARATOR + "%b"]


def pending_gpus(output: str) -> list[int]:
    """Parse the output of :func:`pending`: the number of GPUs that each job waits for."""
    found = []
    for line in output.splitlines():
        count, _, gres = line.partition(SEPARATOR)
        gpus = sum(number for _, number in _gpus(gres)) or gres.startswith(("gpu", "gres:gpu", "gres/gpu"))
        found.append(int(gpus) * (int(count) if count.isdigit() else 1))
    return found
