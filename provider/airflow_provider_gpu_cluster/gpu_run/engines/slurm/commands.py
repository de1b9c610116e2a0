"""Build Slurm's commands, and parse their answers: nothing here runs anything."""

from __future__ import annotations

import math
import re
import shlex
import time
from typing import TYPE_CHECKING, Iterable, Literal, NamedTuple, Sequence

from ...gpus import fake_nvml
from ...protocol.grace import grace_s
from ...supervise.signals import HANDED_ON
from . import words
from .warning_signal import with_warning

if TYPE_CHECKING:
    from ...protocol.settings import Settings
    from ...protocol.spec import Spec
    from .next_start import NextStart

# Separates fields, since names and folders may contain any other character.
SEPARATOR = "\x1f"
_QUEUE_FIELDS = "%i %T %r %S %e %N %j %Z"
_ACCOUNTING_FIELDS = "JobID,State,Reason,Start,End,NodeList,JobName,WorkDir"
_ACCOUNTING_SEPARATOR = "|"
# Slurm's own limits are wider than the supervisor's, so that the supervisor is the one to say why a job ended.
_MORE_TIME_S = 120.0
_MORE_MEMORY = 128 << 20
_LOW_NICE = 1000
# Where Slurm does not say it.
_LARGEST_ARRAY = 1000
_EXPORTED = (
    *("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TZ", "USER"),
    # What a login's modules and environments set together with PATH: programs of that PATH need it.
    *("LD_LIBRARY_PATH", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "PKG_CONFIG_PATH"),
    *("CMAKE_PREFIX_PATH", "MANPATH", "INFOPATH", "PYTHONPATH", "R_LIBS", "R_LIBS_USER", "CUDA_HOME", "CUDA_PATH"),
    *("MODULEPATH", "MODULESHOME", "LOADEDMODULES", "_LMFILES_", "_CE_CONDA", "_CE_M"),
    # Of this program's own.
    fake_nvml.VARIABLE,
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
    elements: Sequence[int] = (),
    again: NextStart | None = None,
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
    :param elements: the numbers of its elements as an array; none when it is not an array.
    :param again: how it starts again, if it has run before.
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
    if elements:
        command.append(f"--array={_ranges(elements)}")
    if spec.get("cpus"):
        command.append("--cpus-per-task={}".format(spec["cpus"]))
    memory, time_limit = spec.get("memory_bytes"), spec.get("time_limit_s")
    own = [*(settings.get("sbatch_options") or ()), *(spec.get("sbatch_options") or ())]
    if again is not None:
        own = again.options(own)
    more_time_s = 0.0
    if memory:
        command.append(f"--mem={math.ceil((memory + _MORE_MEMORY) / 2**20)}M")
    if time_limit:
        seconds = time_limit + grace_s(spec, settings) + _MORE_TIME_S
        minutes = math.ceil(seconds / 60)
        command.append(f"--time={minutes}")
        if not any(option.startswith(("--time", "-t")) for option in own):
            more_time_s = minutes * 60 - time_limit
    if spec.get("priority") == "low":
        command.append(f"--nice={_LOW_NICE}")
    for option in ("partition", "account", "qos", "constraint"):
        value = spec.get(option) or settings.get(option)
        if value:
            command.append(f"--{option}={value}")
    return command + with_warning(own, nodes=nodes, more_time_s=more_time_s, warn_before_s=spec.get("warn_before_s"))


_LETTERS = {"account": "A", "partition": "p", "qos": "q"}


def asked(spec: Spec, settings: Settings, name: Literal["account", "partition", "qos"]) -> str | None:
    """Return the account, partition or QOS that a job asks for, by itself or in the free options."""
    value = spec.get(name) or settings.get(name)
    options = [*(settings.get("sbatch_options") or ()), *(spec.get("sbatch_options") or ())]
    for option, following in zip(options, [*options[1:], ""]):
        if option in (f"--{name}", f"-{_LETTERS[name]}"):
            value = following
        elif option.startswith(f"--{name}="):
            value = option.partition("=")[2]
        elif option.startswith(f"-{_LETTERS[name]}"):
            value = option[2:]
    return value or None


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as Slurm writes them: ``0-3,7``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return ",".join("-".join(map(str, ends)) for ends in ranges)


def exported(names: Iterable[str]) -> list[str]:
    """
    Return the variables that Slurm passes on to the job: none of the login's secrets, but enough to find programs.

    With NONE, Slurm would start a login shell on the node to read the user's profile, which takes as long as the
    profile does, and fails where it fails.
    """
    return sorted(name for name in names if name in _EXPORTED or name.upper().startswith(_EXPORTED_PREFIXES))


def script(python: str, program: str, path: str, *, output: str, is_array: bool) -> str:
    """
    Return the script of a job, which becomes the supervisor of the attempts at ``path``.

    :param output: the path for its own output.
    """
    line = " ".join(shlex.quote(word) for word in (python, "-I", "-S", program, "supervise-slurm", path))
    if "\\" in output:
        number = '."$SLURM_ARRAY_TASK_ID"' if is_array else ""
        line += f" >> {shlex.quote(output)}{number} 2>&1"
    # Until the supervisor listens, a warning must not end it.
    return f"#!/bin/sh\ntrap '' {' '.join(map(str, sorted(HANDED_ON)))}\nexec {line}\n"


def output_option(path: str, *, is_array: bool) -> str:
    """
    Return the path for the option in which Slurm replaces patterns.

    A backslash in it would turn the patterns off, and vanish itself, in a way that differs between versions. Such a
    path is not shown to Slurm: the script opens the file itself, and only Slurm's own messages are lost.
    """
    if "\\" in path:
        return "/dev/null"
    return path.replace("%", "%%") + (".%a" if is_array else "")


def submitted_id(output: str) -> str | None:
    """
    Return the job id that ``sbatch --parsable`` has printed, or a site's program in its place.

    :return: None when there is none, or more than one: whoever needs it then has to look for the job.
    """
    found = re.findall(r"^\s*(?:(\d+)(?:;.*)?|Submitted batch job (\d+)(?: on cluster .*)?)\s*$", output, re.MULTILINE)
    ids = {bare or in_words for bare, in_words in found}
    return ids.pop() if len(ids) == 1 else None


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


def folder_key(folder: str) -> str:
    """Return a folder as it can be compared, since the accounting writes another character for a quote."""
    return folder.replace('"', "`")


def configuration() -> list[str]:
    """Return the command that shows Slurm's configuration."""
    return ["scontrol", "show", "config"]


def largest_array(output: str) -> int:
    """Return how many elements an array may have, by the output of :func:`configuration`."""
    size, jobs = detail(output, "MaxArraySize"), detail(output, "MaxJobCount")
    tasks = re.search(r"\bmax_array_tasks=(\d+)", output)
    most = [int(text) for text in (size, tasks and tasks.group(1)) if text and text.isdigit()]
    # Among all jobs of the cluster, the last place stays free.
    most += [int(jobs) - 1] if jobs and jobs.isdigit() else []
    return max(1, min(most, default=_LARGEST_ARRAY))


def usual_qos(user: str) -> list[str]:
    """Return the command that names the QOS of a user's jobs that ask for none, one for each association."""
    return ["sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={user}", "format=defaultqos"]


def partitions() -> list[str]:
    """Return the command that shows all partitions."""
    return ["scontrol", "--oneliner", "show", "partition"]


def qos_of_partition(output: str, partition: str | None) -> list[str]:
    """
    Return the QOS that a partition sets for all its jobs, by the output of :func:`partitions`.

    :param partition: None for the usual one.
    """
    for line in output.splitlines():
        is_it = "Default=YES" in line if partition is None else detail(line, "PartitionName") == partition
        quality = detail(line, "QoS")
        if is_it and quality not in (None, "N/A"):
            return [str(quality)]
    return []


def details(job: str) -> list[str]:
    """Return the command that asks the controller about one job."""
    return ["scontrol", "--oneliner", "show", "job", job]


def start_of(job: str) -> list[str]:
    """Return the command that says when a running job has got its nodes, in the form of SLURM_TIME_FORMAT."""
    return ["squeue", "--noheader", f"--jobs={job}", "--format=%S"]


def detail(output: str, name: str) -> str | None:
    """Return one value from the output of :func:`details` or ``scontrol show config``."""
    match = re.search(rf"(?:^|\s){name}\s*=\s*(\S+)", output)
    return match.group(1) if match else None


def is_in(output: str, folder: str) -> bool:
    """Return whether a job runs in a folder, by the output of :func:`details`."""
    return f" WorkDir={folder} " in output


def exclude(job: str, nodes: Sequence[str]) -> list[str]:
    """Return the command that keeps a waiting job off nodes."""
    return ["scontrol", "update", f"jobid={job}", "ExcNodeList={}".format(",".join(nodes))]


def node_states(*, partition: str | None = None, names: str | None = None) -> list[str]:
    """Return the command that lists the nodes of a partition, or those of that name, with their states."""
    which = [f"--partition={partition}"] if partition else []
    which += [f"--nodes={names}"] if names else []
    return ["sinfo", "--noheader", "--Node", *which, "--format=%N" + SEPARATOR + "%T"]


def named_nodes(output: str, *, are_failed: bool = False) -> list[str]:
    """
    Parse the output of :func:`node_states`.

    :param are_failed: return only those that are down, or were taken out of use.
    """
    found: dict[str, str] = dict(line.partition(SEPARATOR)[::2] for line in output.splitlines())
    return [name for name, state in found.items() if not are_failed or re.match(r"(down|drain|fail|unk|err)", state)]


def cancel(jobs: Sequence[str]) -> list[str]:
    """Return the command that ends jobs."""
    return ["scancel", *jobs]


def end_softly(jobs: Sequence[str]) -> list[str]:
    """Return the command that tells the supervisors of running jobs to end them, and nobody else."""
    return ["scancel", "--batch", "--signal=TERM", *jobs]


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
        in_use = dict(gpus_of(used))
        is_up = re.match(r"(idle|mixed|allocated|completing|planned)[+~#]?$", state) is not None
        for kind, count in gpus_of(gres):
            # Slurm lists a node once for each of its partitions.
            found[(node, kind)] = NodeGpus(node, kind, count, in_use.get(kind, 0), is_up)
    return list(found.values())


def gpus_of(gres: str) -> list[tuple[str, int]]:
    """Parse a text such as ``gpu:a100:4(S:0-1),gpu:2``."""
    kinds: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        match = re.match(r"^(?:gres[:/])?gpu(?:[:/](.*?))??(?:[:=](\d+))?$", entry.strip())
        if match:
            kind = match.group(1) or "gpu"
            kinds[kind] = kinds.get(kind, 0) + int(match.group(2) or 1)
    return list(kinds.items())


def pending() -> list[str]:
    """Return the command that lists, for each waiting job, what it asks for on each of its nodes."""
    return ["squeue", "--noheader", "--array", "--states=PENDING", "--format=%D" + SEPARATOR + "%b"]


def pending_gpus(output: str) -> list[int]:
    """Parse the output of :func:`pending`: the number of GPUs that each job waits for."""
    found = []
    for line in output.splitlines():
        count, _, gres = line.partition(SEPARATOR)
        gpus = sum(number for _, number in gpus_of(gres))
        found.append(gpus * (int(count) if count.isdigit() else 1))
    return found
