"""
What a DAG author writes for a parameter of a job, checked and made one kind of value.

Numbers may be written as text, because that is what templates give.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
import signal
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from difflib import get_close_matches
from numbers import Real
from typing import Any, TypeAlias

from airflow_provider_gpu_cluster.exceptions import InvalidJobError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.jobs.rendered import (
    as_dict,
    as_list,
    as_number,
    as_text,
    check_defined,
    flat,
    is_unset,
)
from airflow_provider_gpu_cluster.jobs.sbatch_options import VALID
from airflow_provider_gpu_cluster.jobs.sbatch_options import sbatch_options as words_of

# Takes a parameter's name and what is written for it, and returns what is meant.
Check: TypeAlias = Callable[[str, Any], Any]

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
    "RESUMED_FROM",
    "STOP_GRACE_S",
    "TIME_LIMIT_AT",
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
# A launch over a slow network takes seconds, and what is renewed every third of this has to arrive in time.
SHORTEST_FAILOVER_S = 30.0
_CONNECTIONS = "the id of a connection, or a list of ids, such as ['gpu01', 'gpu02']"
# A timedelta, as a template renders it.
_DURATION = re.compile(r"(?:([0-9]{1,5}) days?, )?([0-9]{1,5}):([0-5][0-9]):([0-5][0-9](?:\.[0-9]{1,6})?)")
# More than that from one attempt to the next is a slip.
_MOST_MEMORY_FACTOR = 100
_MIN_MEMORY_BYTES = 1 << 20
_MAX_MEMORY_BYTES = (1 << 63) - 1


def check_env(env: Mapping[str, Any] | str | None, *, is_array: bool = False) -> dict[str, str]:
    """
    Check the environment variables a DAG gives to a job.

    :param env: names, and values that are texts, numbers or booleans, or the text of such a dict; None for none.
    :param is_array: they are for an array, or an element of one.
    :raises InvalidJobError: a name or value is not valid. The message never holds a value.
    """
    if is_unset(env):
        return {}
    check_defined("env", env)
    env = as_dict(env)
    if not isinstance(env, Mapping):
        raise InvalidJobError(f"env is a {type(env).__name__}; valid is a dict such as {{'SEED': '7'}}")
    reserved = RESERVED_ENV + RESERVED_ARRAY_ENV if is_array else RESERVED_ENV
    return {_env_name(name, reserved): _env_value(name, value) for name, value in env.items()}


def _invalid(parameter: str, value: object, valid: str) -> InvalidJobError:
    shown = repr(value)
    if len(shown) > 200:
        shown = f"{shown[:200]}..."
    kind = "" if value is None or isinstance(value, str) else f" ({type(value).__name__})"
    return InvalidJobError(f"{parameter}={shown}{kind} is not valid; valid is {valid}")


def _passes_to_a_process(text: str) -> bool:
    """Return whether text can be handed to a process: no NUL, and no half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def optional(check: Check) -> Check:
    """Return a check for which None, empty text, and the text ``None`` (as a template renders None) are None."""

    def check_unless_unset(parameter: str, value: Any) -> Any:
        return None if is_unset(value) else check(parameter, value)

    return check_unless_unset


def entry_script(parameter: str, value: Any) -> str | None:
    if value is None or value in ("", "None"):
        return None
    value = value if isinstance(value, bool) else as_text(value)
    valid = "the path of a file in the code, relative to it, such as 'train.py' or 'src/train.py'"
    if not isinstance(value, (str, os.PathLike)):
        raise _invalid(parameter, value, valid)
    text = os.fspath(value)
    if not isinstance(text, str) or not text.strip() or not _passes_to_a_process(text):
        raise _invalid(parameter, value, valid)
    path = posixpath.normpath(text)
    if text.endswith("/") or path in (".", "..") or path.startswith(("/", "../")):
        raise _invalid(parameter, value, valid)
    return path


def command(parameter: str, value: Any) -> str | None:
    if value is None or value in ("", "None"):
        return None
    value = value if isinstance(value, bool) else as_text(value)
    if not isinstance(value, str) or not value.strip() or not _passes_to_a_process(value):
        raise _invalid(parameter, value, "shell text, such as 'python train.py --epochs 3 | tee out.txt'")
    return value.replace("\r\n", "\n")


def script_args(parameter: str, value: Any) -> tuple[str, ...]:
    if is_unset(value):
        return ()
    items = as_list(value)
    if not isinstance(items, list) or isinstance(value, (set, frozenset)):
        raise _invalid(parameter, value, "a list with one item per argument, such as ['--epochs', '20']")
    return tuple(_script_arg(f"{parameter}[{position}]", item) for position, item in enumerate(items))


def _script_arg(parameter: str, item: Any) -> str:
    text = os.fspath(item) if isinstance(item, os.PathLike) else item
    text = as_text(text)
    if isinstance(text, str) and _passes_to_a_process(text) and len(text.encode()) <= _MAX_STRING_BYTES:
        return text
    valid = f"text (without NUL, at most {_MAX_STRING_BYTES} bytes), a number or a boolean"
    raise _invalid(parameter, item, valid)


def priority(parameter: str, value: Any) -> str:
    word = value.strip() if isinstance(value, str) else value
    if not isinstance(word, str) or word not in protocol.PRIORITIES:
        raise _invalid(parameter, value, "one of " + ", ".join(map(repr, protocol.PRIORITIES)))
    return word


def boolean(parameter: str, value: Any) -> bool:
    words = {"true": True, "false": False}
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, bool):
        return word
    if not isinstance(word, str) or word not in words:
        raise _invalid(parameter, value, "True or False")
    return words[word]


def count(parameter: str, value: Any) -> int:
    number = as_number(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise _invalid(parameter, value, "a whole number from 1 up")
    return number


def gpu_type(parameter: str, value: Any) -> str:
    value = value if isinstance(value, bool) else as_text(value)
    if not isinstance(value, str) or not value.isprintable():
        raise _invalid(parameter, value, "a part of the GPU's name as nvidia-smi shows it, such as 'A100'")
    return value.strip()


def word(example: str) -> Check:
    """Return the check of what becomes the end of one of sbatch's options."""

    def check(parameter: str, value: Any) -> str:
        value = value if isinstance(value, bool) else as_text(value)
        if not isinstance(value, str) or not value.isprintable():
            raise _invalid(parameter, value, f"one line of text, such as {example!r}")
        return value.strip()

    return check


def sbatch_options(parameter: str, value: Any) -> tuple[str, ...]:
    if is_unset(value):
        return ()
    value = as_list(value)
    if isinstance(value, list):
        value = [word if isinstance(word, bool) else as_text(word) for word in value]
    if not isinstance(value, (str, list, tuple)) or not all(isinstance(word, str) for word in value):
        raise _invalid(parameter, value, VALID)
    try:
        return words_of(value)
    except ValueError as error:
        raise InvalidJobError(f"{parameter}={value!r} is not valid: {error}") from None


def memory_bytes(parameter: str, value: Any) -> int:
    valid = "bytes, or a number with a unit (powers of 1024): '512M', '32G', '1.5T'"
    number = as_number(value)
    if isinstance(number, int) and not isinstance(number, bool):
        size = number
    else:
        pattern = r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(?:([KMGTPE])I?)?B?\s*"
        match = re.fullmatch(pattern, value.upper()) if isinstance(value, str) else None
        if match is None:
            raise _invalid(parameter, value, valid)
        exponent = "_KMGTPE".index(match[2]) if match[2] else 0
        size = int(Decimal(match[1]) * 1024**exponent)
    if size < _MIN_MEMORY_BYTES:
        raise _invalid(parameter, value, f"{valid}; it is {size} bytes, and no job starts with less than 1M")
    if size > _MAX_MEMORY_BYTES:
        raise _invalid(parameter, value, f"{valid}; less than 8E")
    return size


def _seconds(value: Any) -> float | None:
    """Return a number of seconds; None when the value is none."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal, str)):
        return None
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def time_limit_s(parameter: str, value: Any) -> float:
    seconds = _seconds(value)
    if seconds is None or seconds <= 0:
        raise _invalid(parameter, value, "seconds above 0, such as 3600, timedelta(hours=1), or its text '1:00:00'")
    return seconds


def grace_s(parameter: str, value: Any) -> float:
    seconds = _seconds(value)
    if seconds is None or seconds < 0:
        raise _invalid(parameter, value, "seconds from 0 up, such as 10")
    return seconds


def percent(parameter: str, value: Any) -> float:
    number = as_number(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 100:
        raise _invalid(parameter, value, "a number from 0 to 100, in percent, such as 5")
    return float(number)


def signal_name(parameter: str, value: Any) -> str:
    text = value if isinstance(value, bool) else as_text(value)
    valid = "the name of a signal that a process can catch, such as 'TERM', 'INT' or 'USR1'"
    if not isinstance(text, str):
        raise _invalid(parameter, value, valid)
    name = text.strip().upper()
    name = name[3:] if name.startswith("SIG") else name
    if name.isdigit() and int(name) in set(signal.Signals):
        name = signal.Signals(int(name)).name[3:]
    if f"SIG{name}" not in signal.Signals.__members__ or name in ("KILL", "STOP", "CHLD", "CLD"):
        raise _invalid(parameter, value, valid)
    return name


def one_of(*words: str) -> Check:
    """Return the check of a word that is one of a few."""

    def check(parameter: str, value: Any) -> str:
        text = value.strip() if isinstance(value, str) else value
        if text not in words:
            raise _invalid(parameter, value, "one of " + ", ".join(map(repr, words)))
        return str(text)

    return check


def exit_code(parameter: str, value: Any) -> int:
    number = as_number(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 255:
        raise _invalid(parameter, value, "a whole number from 1 to 255")
    return number


def recover(parameter: str, value: Any) -> dict[str, Any]:
    """Return the budget of every reason; an empty one for a job that never goes on."""
    word = value.strip().lower() if isinstance(value, str) else value
    if is_unset(value) or word is True or word == "true":
        return dict(protocol.DEFAULT_RECOVER)
    if word is False or word == "false":
        return {}
    budgets = as_dict(value)
    if not isinstance(budgets, Mapping):
        valid = "None (the default), False (never), or a dict such as {'preempted': 20, 'time_limit': 'progress'}"
        raise _invalid(parameter, value, valid)
    found = {**protocol.DEFAULT_RECOVER, **{name: _budget(parameter, name, one) for name, one in budgets.items()}}
    return {name: budget for name, budget in found.items() if budget != 0}


def _budget(parameter: str, name: Any, value: Any) -> int | str | list[Any]:
    if name not in protocol.RECOVERABLE:
        near = get_close_matches(str(name).lower(), protocol.RECOVERABLE, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        valid = ", ".join(protocol.RECOVERABLE)
        raise InvalidJobError(f"{parameter} has the key {repr(name)[:100]}{hint}; valid are the reasons {valid}")
    parameter = f"{parameter}[{name!r}]"
    written = value.strip() if isinstance(value, str) else value
    pair = as_list(written)
    valid = "how often, as a whole number from 0 up"
    if name == protocol.TIME_LIMIT:
        if written == protocol.PROGRESS:
            return protocol.PROGRESS
        valid += f", or {protocol.PROGRESS!r}: as long as it saves something in CHECKPOINT_DIR"
    elif written == protocol.PROGRESS:
        valid += f" ({protocol.PROGRESS!r} is for time_limit alone)"
    if name == protocol.OUT_OF_MEMORY:
        if isinstance(pair, list) and len(pair) == 2 and not isinstance(written, (set, frozenset)):
            times, factor = _times(pair[0]), _memory_factor(pair[1])
            if times is not None and factor is not None:
                return [times, factor] if times else 0
        valid += (
            f", or such as (2, 1.5): twice, each time with 1.5 times the memory (above 1, up to {_MOST_MEMORY_FACTOR})"
        )
    elif isinstance(pair, list):
        valid += " (a factor is for out_of_memory alone)"
    times = _times(written)
    if times is None:
        raise _invalid(parameter, value, valid)
    return times


def _times(value: Any) -> int | None:
    """Return how often; None when it says nothing of the kind."""
    number = as_number(value)
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else None


def _memory_factor(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal, str)):
        return None
    try:
        factor = float(value)
    except (ValueError, OverflowError):
        return None
    return factor if 1 < factor <= _MOST_MEMORY_FACTOR else None


def requirements(parameter: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip() == "None"):
        return None
    value = as_list(value)
    valid = "requirement lines, such as ['numpy>=2', 'torch==2.5.1'], or the text of a requirements file"
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, (list, tuple)) or not all(isinstance(line, str) for line in lines):
        raise _invalid(parameter, value, valid)
    text = "\n".join(lines).replace("\r\n", "\n").strip("\n")
    if not _passes_to_a_process(text):
        raise _invalid(parameter, value, valid)
    if re.fullmatch(r"\s*\S+\.(txt|in|toml)\s*", text):
        raise _invalid(
            parameter,
            value,
            f"{valid}, not its path; a requirements.txt at the top of the code is used without being named",
        )
    return f"{text}\n" if text.strip() else ""


def setup(parameter: str, value: Any) -> str:
    if is_unset(value):
        return ""
    value = value if isinstance(value, str) and value.strip()[:1] == "(" else as_list(value)
    lines = [value] if isinstance(value, str) else value
    if (
        not isinstance(lines, (list, tuple))
        or not all(isinstance(line, str) for line in lines)
        or not _passes_to_a_process("\n".join(lines))
    ):
        raise _invalid(parameter, value, "shell lines, such as ['module load cuda/12.4'], or one text")
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
    value = as_text(value)
    if not isinstance(value, str):
        raise InvalidJobError(f"env[{name!r}] is a {type(value).__name__}; valid are text, numbers and booleans")
    text = value
    if not _passes_to_a_process(text):
        raise InvalidJobError(f"env[{name!r}] holds a NUL or broken Unicode (its value is not shown)")
    size = len(name) + 1 + len(text.encode())
    if size > _MAX_STRING_BYTES:
        raise InvalidJobError(
            f"env[{name!r}] has {size} bytes with its name, and Linux takes at most {_MAX_STRING_BYTES}; "
            "put it into a file among the data"
        )
    return text


def source(parameter: str, value: Any) -> Any:
    """Return one source, or None: the only one of a list, too."""
    check_defined(parameter, value)
    found = [one if isinstance(one, bool) else as_text(one) for one in flat(value)]
    return (found[0] if found else None) if len(found) < 2 else found


def sources(parameter: str, value: Any) -> list[Any]:
    """Return a list of sources, from one or from lists of lists of them."""
    check_defined(parameter, value)
    return [one if isinstance(one, bool) else as_text(one) for one in flat(value)]


def patterns(parameter: str, value: Any) -> list[str]:
    """Return a list of patterns of paths."""
    check_defined(parameter, value)
    found = [as_text(one) for one in ([value] if isinstance(value, str) and not is_unset(value) else flat(value))]
    for one in found:
        if not isinstance(one, str):
            raise _invalid(parameter, one, "patterns of paths, such as ['*.pth', 'metrics.json']")
    return found


def connection_ids(value: Any, *, parameter: str = "gpu_cluster_conn_id") -> str | list[str] | None:
    """
    Return the id of a connection, or those of several clusters, of which one is chosen; None if none is given.

    A template makes text of a list: ``"['a', 'b']"`` or ``"a, b"``.

    :raises InvalidJobError: it is none of these, or an id is there twice.
    """
    check_defined(parameter, value)
    if is_unset(value):
        return None
    written = as_list(value)
    if isinstance(written, str):
        if written.strip()[:1] in ("[", "(", "{"):
            raise _invalid(parameter, value, _CONNECTIONS)
        # No id of a connection has a comma, or a line break.
        written = [one for one in written.replace("\n", ",").split(",") if one.strip()]
    if not isinstance(written, list):
        written = [written]
    ids = [one.strip() for one in map(as_text, written) if isinstance(one, str)]
    if len(ids) < len(written) or isinstance(value, (set, frozenset)) or any(map(is_unset, ids)):
        raise _invalid(parameter, value, _CONNECTIONS)
    if not ids:
        raise InvalidJobError(f"{parameter} is an empty list; name at least one connection, such as ['gpu01', 'gpu02']")
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise InvalidJobError(f"{parameter} names {', '.join(twice)} more than once; name each cluster once")
    return ids[0] if len(ids) == 1 else ids


def failover_after_s(parameter: str, value: Any) -> float:
    seconds = _seconds(value)
    if seconds is None or seconds <= 0:
        raise _invalid(parameter, value, "None, or seconds or a timedelta, such as timedelta(minutes=10)")
    if seconds < SHORTEST_FAILOVER_S:
        raise InvalidJobError(
            f"{parameter} is {seconds:g} s, and must be at least {SHORTEST_FAILOVER_S:g} s: within it a launch has to "
            "reach the cluster, and the task has to be heard there again and again, or a short outage would already "
            "count as the loss of the cluster"
        )
    return seconds


def move_gain_s(parameter: str, value: Any) -> float:
    seconds = _seconds(value)
    if seconds is None or seconds < 0:
        raise _invalid(parameter, value, "None (never moved), or seconds or a timedelta, such as timedelta(minutes=10)")
    return seconds
