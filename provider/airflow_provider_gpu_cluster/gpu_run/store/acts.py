"""
The audit trail: each act on a job is one line in the job's ``.job/events.jsonl``, and the same one in the ledger.

A request that is repeated, since its reply was lost, has the same key, and makes no second line. The trail is
secondary: no act waits for it or fails for it, whatever is wrong with the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Mapping, cast

from ..ledger.ledger import Ledger
from ..ledger.who import line_of
from ..linux import locks, processes, regular_files
from ..protocol.ledger import ACT
from ..protocol.masks import are_masks, hidden
from . import records

if TYPE_CHECKING:
    from ..protocol.ledger import ActLine
    from ..protocol.masks import Masks

#: The program itself, when nobody has asked for what it does.
ITSELF = "gpu-run"
#: How long an act may wait to be noted, in seconds.
_LOCK_S = 0.1
_LEDGER_LOCK_S = 0.3
_MOST_CHARACTERS = 200
_MOST_DETAILS = 500
# How far back the line of the same request is looked for.
_RECENT_BYTES = 1 << 16


def note_act(
    job: str,
    act: str,
    *,
    caller: Mapping[str, Any] | None = None,
    through: str = "",
    attempt: int | None = None,
    key: str = "",
    details: str = "",
    asked: Mapping[str, Any] | None = None,
    later: list[ActLine] | None = None,
) -> None:
    """
    Note that somebody has acted on a job. Call it when that is done.

    :param job: path of the job's directory, whether it is there or not.
    :param act: one of :data:`.protocol.acts.ACTS`.
    :param caller: who has asked for it; an empty one is a client that does not say it. None is this program itself.
    :param through: by what means, in words; by default the task of the caller.
    :param attempt: number of the attempt that it made or met.
    :param key: names the request; there is one line for all that have the same.
    :param details: more about it, for a person.
    :param asked: the request of the attempt, if it is at hand.
    :param later: where to add the line for the ledger, of several that are appended to it together.
    """
    # Jobs can write to their records, and the trail keeps nobody from acting.
    with contextlib.suppress(Exception):
        asked = what_was_asked(job, attempt) if asked is None else asked
        line = _line(job, act, caller, through, attempt, key, details, asked)
        # Of what this program does by itself, no record is begun: the job may just be deleting its directory.
        if not _is_new(os.path.join(job, ".job", "events.jsonl"), line, create=caller is not None):
            return
        if later is None:
            append_to_ledger(os.path.dirname(job), [line])
        else:
            later.append(line)


def append_to_ledger(root: str, lines: list[ActLine]) -> None:
    """
    Append lines of acts to the ledger.

    :param root: path of the root.
    """
    if lines:
        Ledger(os.path.join(root, ".gpu-run")).append_all(lines, wait_s=_LEDGER_LOCK_S)


def name_of(caller: Mapping[str, Any]) -> str:
    """Return who makes a request: the user, the owner of the DAG, a person, or the login on the cluster."""
    told = (caller.get(name) for name in ("user", "triggered_by", "owner", "person"))
    name = next((text for text in told if isinstance(text, str) and text), None)
    return name or ("Airflow" if caller.get("airflow_host") else processes.user())


def what_was_asked(job: str, attempt: int | None = None) -> Mapping[str, Any]:
    """Return what the records say of who asked for a job, and of its secrets."""
    paths = [os.path.join(job, ".job", "owner.json")]
    if attempt is not None:
        paths.insert(0, os.path.join(job, ".job", "attempts", str(attempt), "request.json"))
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            found = records.read_json(path, records.MOST_BYTES_OF_LISTS)
            if found is not None:
                return cast("Mapping[str, Any]", found)
    return {}


def _line(
    job: str,
    act: str,
    caller: Mapping[str, Any] | None,
    through: str,
    attempt: int | None,
    key: str,
    details: str,
    asked: Mapping[str, Any],
) -> ActLine:
    masks = asked.get("masks")
    masks = cast("Masks", masks) if are_masks(masks) else None
    line = cast("ActLine", line_of(ACT, records.now(), os.path.basename(job), asked.get("by") or asked.get("record")))
    line["act"] = act
    line["by"] = cleaned(hidden(ITSELF if caller is None else name_of(caller), masks))
    line["host"] = processes.hostname()
    if caller is not None:
        line["host"] = cleaned(str(caller.get("airflow_host") or line["host"]))
        address = os.environ.get("SSH_CLIENT", "").split()
        if address:
            line["address"] = cleaned(address[0])
        if isinstance(caller.get("try_number"), int):
            line["try_number"] = caller["try_number"]
    told = {"through": through or _task(caller or {}), "key": key, "details": details}
    for name, text in told.items():
        if text:
            most = _MOST_DETAILS if name == "details" else _MOST_CHARACTERS
            line[name] = cleaned(hidden(text, masks), most)  # type: ignore[literal-required]
    if attempt is not None:
        line["attempt"] = attempt
    return line


def _task(caller: Mapping[str, Any]) -> str:
    if not caller.get("task_id"):
        return ""
    text = "Airflow task {}.{}, run {}".format(caller.get("dag_id"), caller["task_id"], caller.get("run_id"))
    index = caller.get("map_index")
    return f"{text}, map index {index}" if isinstance(index, int) and index >= 0 else text


def cleaned(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Return a text in one line, without what controls a terminal or turns lines around, and not longer than that."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[: most + 1])
    return clean if len(clean) <= most else f"{clean[: most - 1]}…"


def _is_new(path: str, line: ActLine, *, create: bool) -> bool:
    """
    Append a line to a job's own record, if possible; return whether it is the first about its request.

    :param create: begin the record if there is none.
    """
    try:
        fd = _open(path) if create else _open_existing(path)
    except OSError:
        return True
    try:
        is_alone = locks.lock_file(fd, timeout_s=_LOCK_S)
        end = regular_files.read_end(path, _RECENT_BYTES)
        if "key" in line and _has(end, line):
            return False
        text = json.dumps(line).encode("ascii") + b"\n"
        if end and not end.endswith(b"\n"):
            # The disk was full, and holds a part of a line.
            text = b"\n" + text
        size = os.fstat(fd).st_size
        if os.write(fd, text) != len(text) and is_alone:
            os.ftruncate(fd, size)
    except OSError:
        pass
    finally:
        os.close(fd)
    return True


def _open(path: str) -> int:
    try:
        return regular_files.open_to_append(path)
    except regular_files.NotRegular:
        records.put_aside(path)
        return regular_files.open_to_append(path)


def _open_existing(path: str) -> int:
    regular_files.check(os.lstat(path), path)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _has(end: bytes, line: ActLine) -> bool:
    """Return whether the last lines of a record have one about the same request."""
    names = ("act", "key")
    sign = json.dumps(line["key"]).encode("ascii")
    for text in end.split(b"\n"):
        if sign in text:
            with contextlib.suppress(ValueError, AttributeError):
                found = json.loads(text)
                if [found.get(name) for name in names] == [line.get(name) for name in names]:
                    return True
    return False
