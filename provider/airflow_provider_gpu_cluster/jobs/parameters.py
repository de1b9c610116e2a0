"""What a DAG author writes about a job, checked and turned into a :class:`JobSpec`."""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.jobs.sbatch_options import VALID, sbatch_options
from airflow_provider_gpu_cluster.jobs.spec import JobSpec

RESERVED_ENV = (
    "JOB_ID",
    "JOB_DIR",
    "OUTPUT_DIR",
    "LOG_DIR",
    "DATA_DIR",
    "MODEL_DIR",
    "CHECKPOINT_DIR",
    "PROGRESS_FILE",
    "ATTEMPT",
    "GPU_COUNT",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "GPUS_PER_NODE",
    "NNODES",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Environment variables that every job gets from its supervisor, and that a DAG cannot set."""

RESERVED_ARRAY_ENV = ("ARRAY_INDEX", "ARRAY_COUNT")
"""Those that the elements of an array get as well."""

# Linux takes no longer argument or environment variable (MAX_ARG_STRLEN, with its final NUL).
_MAX_STRING_BYTES = 131_072 - 1
_MIN_MEMORY_BYTES = 1 << 20
_MAX_MEMORY_BYTES = (1 << 63) - 1


def make_spec(
    *,
    entry_script: str | os.PathLike[str] | None = None,
    script_args: Sequence[Any] | None = None,
    command: str | None = None,
    gpus: int | str = 1,
    gpu_type: str | None = None,
    cpus: int | str | None = None,
    memory: int | str | None = None,
    time_limit: float | str | timedelta | None = None,
    priority: str = "normal",
    nodes: int | str = 1,
    partition: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    constraint: str | None = None,
    sbatch_options: str | Sequence[str] | None = None,
    requirements: str | Sequence[str] | None = None,
    setup: str | Sequence[str] | None = None,
    grace_s: float | str = 10.0,
) -> JobSpec:
    """
    Check the parameters of a job.

    Numbers may be written as text, because that is what templates give. For ``gpu_type``, ``cpus``, ``memory``,
    ``time_limit``, ``partition``, ``account``, ``qos`` and ``constraint``, empty text and the text ``None`` (as a
    template renders None) mean None.

    :param entry_script: path of the script to run, relative to the code. Exactly one of this and ``command``.
    :param script_args: arguments of the entry script: a list of texts, numbers and booleans.
    :param command: shell text to run instead of an entry script.
    :param gpus: number of whole GPUs, 1 or more.
    :param gpu_type: only GPUs whose name contains this text, compared without case; None for any.
    :param cpus: CPU cores, 1 or more; None leaves it to the cluster.
    :param memory: limit on host memory: bytes, or a number with one of the units K, M, G, T, P, E (powers of
        1024); None for no limit.
    :param time_limit: limit on the run time: seconds or a timedelta; None for no limit.
    :param priority: ``high``, ``normal`` or ``low``.
    :param nodes: number of nodes, 1 or more, with ``gpus``, ``cpus`` and ``memory`` on each.
    :param partition: Slurm partition; None for the connection's. So with ``account``, ``qos`` and ``constraint``.
    :param account: Slurm account.
    :param qos: Slurm QOS.
    :param constraint: features that Slurm's nodes must have.
    :param sbatch_options: further options of ``sbatch``, as a list with one item per word or as one text.
    :param requirements: requirement lines, as a list or as the text of a requirements file; empty for none;
        None takes ``requirements.txt`` from the code if it is there.
    :param setup: shell lines to run first, as one text or a list of lines.
    :param grace_s: seconds between TERM and KILL when the job is stopped, 0 or more.
    :raises InvalidJobError: a parameter is not valid; the message says which, its value, and what is valid.
    """
    script = _entry_script(entry_script)
    shell = _command(command)
    if (script is None) == (shell is None):
        found = "neither was" if script is None else f"both ({script!r} and a command) were"
        raise InvalidJobError(f"give exactly one of entry_script and command; {found} given")
    args = _script_args(script_args)
    if args and script is None:
        raise InvalidJobError("script_args are for an entry_script; write the arguments of a command into it")
    if not isinstance(priority, str) or priority not in protocol.PRIORITIES:
        raise _invalid("priority", priority, "one of " + ", ".join(map(repr, protocol.PRIORITIES)))
    return JobSpec(
        entry_script=script,
        script_args=args,
        command=shell,
        gpus=_count("gpus", gpus),
        gpu_type=_gpu_type(gpu_type),
        cpus=None if _unset(cpus) else _count("cpus", cpus),
        memory_bytes=None if _unset(memory) else _memory_bytes(memory),
        time_limit_s=None if _unset(time_limit) else _time_limit_s(time_limit),
        priority=priority,
        nodes=_count("nodes", nodes),
        partition=_word("partition", partition, "gpu"),
        account=_word("account", account, "research"),
        qos=_word("qos", qos, "long"),
        constraint=_word("constraint", constraint, "a100&nvlink"),
        sbatch_options=_sbatch_options(sbatch_options),
        requirements=_requirements(requirements),
        setup=_setup(setup),
        grace_s=_grace_s(grace_s),
    )


def check_env(env: Mapping[str, Any] | None, *, is_array: bool = False) -> dict[str, str]:
    """
    Check the environment variables a DAG gives to a job.

    :param env: names, and values that are texts, numbers or booleans; None for none.
    :param is_array: they are for an array, or an element of one.
    :raises InvalidJobError: a name or value is not valid. The message never holds a value.
    """
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise InvalidJobError(f"env is a {type(env).__name__}; valid is a dict such as {{'SEED': '7'}}")
    reserved = RESERVED_ENV + RESERVED_ARRAY_ENV if is_array else RESERVED_ENV
    return {_env_name(name, reserved): _env_value(name, value) for name, value in env.items()}


def _invalid(parameter: str, value: object, valid: str) -> InvalidJobError:
    shown = repr(value)
    if len(shown) > 200:
        shown = f"{shown[:200]}..."
    return InvalidJobError(f"{parameter}={shown} is not valid; valid is {valid}")


def _unset(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


def _passes_to_a_process(text: str) -> bool:
    """Return whether text can be handed to a process: no NUL, and no half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _entry_script(value: Any) -> str | None:
    if value is None or value == "":
        return None
    valid = "the path of a file in the code, relative to it, such as 'train.py' or 'src/train.py'"
    if not isinstance(value, (str, os.PathLike)):
        raise _invalid("entry_script", value, valid)
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip() or not _passes_to_a_process(text):
        raise _invalid("entry_script", value, valid)
    path = posixpath.normpath(text)
    if text.endswith("/") or path in (".", "..") or path.startswith(("/", "../")):
        raise _invalid("entry_script", value, valid)
    return path


def _command(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.strip() or not _passes_to_a_process(value):
        raise _invalid("command", value, "shell text, such as 'python train.py --epochs 3 | tee out.txt'")
    return value.replace("\r\n", "\n")


def _script_args(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise _invalid("script_args", value, "a list with one item per argument, such as ['--epochs', '20']")
    return tuple(_script_arg(position, item) for position, item in enumerate(value))


def _script_arg(position: int, item: Any) -> str:
    text = os.fspath(item) if isinstance(item, os.PathLike) else item
    if isinstance(text, (bool, int, float)):
        text = str(text)
    if isinstance(text, str) and _passes_to_a_process(text) and len(text.encode()) <= _MAX_STRING_BYTES:
        return text
    valid = f"text (without NUL, at most {_MAX_STRING_BYTES} bytes), a number or a boolean"
    raise _invalid(f"script_args[{position}]", item, valid)


def _count(parameter: str, value: Any) -> int:
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and re.fullmatch(r"[0-9]{1,9}", text):
        text = int(text)
    if isinstance(text, bool) or not isinstance(text, int) or text < 1:
        raise _invalid(parameter, value, "a whole number from 1 up")
    return text


def _gpu_type(value: Any) -> str | None:
    if _unset(value):
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise _invalid("gpu_type", value, "a part of the GPU's name as nvidia-smi shows it, such as 'A100'")
    return value.strip()


def _word(parameter: str, value: Any, example: str) -> str | None:
    """Check a value that becomes the end of one of sbatch's options."""
    if _unset(value):
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise _invalid(parameter, value, f"one line of text, such as {example!r}")
    return value.strip()


def _sbatch_options(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, (str, list, tuple)) or not all(isinstance(word, str) for word in value):
        raise _invalid("sbatch_options", value, VALID)
    try:
        return sbatch_options(value)
    except ValueError as error:
        raise InvalidJobError(f"sbatch_options={value!r} is not valid: {error}") from None


def _memory_bytes(value: Any) -> int:
    valid = "bytes, or a number with a unit (powers of 1024): '512M', '32G', '1.5T'"
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        pattern = r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?:([KMGTPE])I?)?B?\s*"
        match = re.fullmatch(pattern, value.upper()) if isinstance(value, str) else None
        if match is None:
            raise _invalid("memory", value, valid)
        exponent = "_KMGTPE".index(match[2]) if match[2] else 0
        size = int(Decimal(match[1]) * 1024**exponent)
    if size < _MIN_MEMORY_BYTES:
        raise _invalid("memory", value, f"{valid}; it is {size} bytes, and no job starts with less than 1M")
    if size > _MAX_MEMORY_BYTES:
        raise _invalid("memory", value, f"{valid}; less than 8E")
    return size


def _seconds(value: Any) -> float | None:
    """Return a number of seconds; None when the value is none."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _time_limit_s(value: Any) -> float:
    seconds = _seconds(value)
    if seconds is None or seconds <= 0:
        raise _invalid("time_limit", value, "seconds above 0, such as 3600, or timedelta(hours=1)")
    return seconds


def _grace_s(value: Any) -> float:
    seconds = _seconds(value)
    if seconds is None or seconds < 0:
        raise _invalid("grace_s", value, "seconds from 0 up, such as 10")
    return seconds


def _requirements(value: Any) -> str | None:
    if value is None:
        return None
    valid = "requirement lines, such as ['numpy>=2', 'torch==2.5.1'], or the text of a requirements file"
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, (list, tuple)) or not all(isinstance(line, str) for line in lines):
        raise _invalid("requirements", value, valid)
    text = "\n".join(lines).replace("\r\n", "\n").strip("\n")
    if not _passes_to_a_process(text):
        raise _invalid("requirements", value, valid)
    if re.fullmatch(r"\s*\S+\.(txt|in|toml)\s*", text):
        raise _invalid(
            "requirements",
            value,
            f"{valid}, not its path; a requirements.txt at the top of the code is used without being named",
        )
    return f"{text}\n" if text.strip() else ""


def _setup(value: Any) -> str:
    if value is None:
        return ""
    lines = [value] if isinstance(value, str) else value
    if (
        not isinstance(lines, (list, tuple))
        or not all(isinstance(line, str) for line in lines)
        or not _passes_to_a_process("\n".join(lines))
    ):
        raise _invalid("setup", value, "shell lines, such as ['module load cuda/12.4'], or one text")
    return "\n".join(lines).replace("\r\n", "\n").strip("\n")


def _env_name(name: Any, reserved: tuple[str, ...]) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise InvalidJobError(f"env has the name {name!r}; valid are letters, digits and _, not beginning with a digit")
    if name in reserved:
        raise InvalidJobError(
            f"env sets {name}, which every job gets from the cluster; use another name "
            f"(reserved are {', '.join(reserved)})"
        )
    return name


def _env_value(name: Any, value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise InvalidJobError(f"env[{name!r}] is a {type(value).__name__}; valid are text, numbers and booleans")
    text = str(value)
    if not _passes_to_a_process(text):
        raise InvalidJobError(f"env[{name!r}] holds a NUL or broken Unicode (its value is not shown)")
    size = len(name) + 1 + len(text.encode())
    if size > _MAX_STRING_BYTES:
        raise InvalidJobError(
            f"env[{name!r}] has {size} bytes with its name, and Linux takes at most {_MAX_STRING_BYTES}; "
            "put it into a file among the data"
        )
    return text
