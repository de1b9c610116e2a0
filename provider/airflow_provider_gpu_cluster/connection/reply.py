"""Finds the reply to a request in what a command prints, and checks everything in it."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from airflow_provider_gpu_cluster.connection.channel import text_of
from airflow_provider_gpu_cluster.connection.command_start import PRINTS_WITHOUT_END
from airflow_provider_gpu_cluster.connection.wire_types import WrongType, checked
from airflow_provider_gpu_cluster.connection.words import cleaned
from airflow_provider_gpu_cluster.exceptions import GpuClusterProtocolError, GpuClusterSetupError
from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.protocol import (
    acts,
    appraisal,
    description,
    following,
    job_list,
    ledger,
    ledger_reading,
    logs,
    looks,
    overview,
    placement,
    replies,
    series,
    totals,
)

# A list of half a million outputs fits into it.
MOST_REPLY_BYTES = 1 << 26
# A value takes far more memory than its text. This many are less than 1 GB, whatever they are.
MOST_VALUES = 1 << 22
_MOST_NOISE_BYTES = 1 << 20
_SHOWN_CHARACTERS = 200

_REPLIES: dict[str, Any] = {
    "install-check": replies.Check,
    "capacity": replies.Capacity,
    "appraise": appraisal.AppraiseReply,
    "overview": overview.Overview,
    "totals": totals.TotalsReply,
    "stage": replies.StageReply,
    "carry-in": replies.StageReply,
    "submit": replies.SubmitReply,
    "resubmit": replies.SubmitReply,
    "status": replies.StatusReply,
    "cancel": replies.StatusReply,
    "place": placement.PlaceReply,
    "renew": placement.RenewReply,
    "jobs": job_list.JobsReply,
    "usage": ledger.UsageReply,
    "interrupt": replies.InterruptReply,
    "told": replies.ToldReply,
    "gc": replies.GcReport,
    "read-series": series.SeriesReply,
    "audit": acts.AuditReply,
    "read-ledger": ledger_reading.ReadLedgerReply,
    "read-log": logs.LogWindow,
    "copy-log": logs.LogBytes,
    "search-log": logs.LogHits,
    "list-outputs": looks.ListOutputsReply,
    "read-output": looks.ReadOutputReply,
    "send-output": looks.SendOutputReply,
    "read-metrics": looks.ReadMetricsReply,
    "list-elements": looks.ListElementsReply,
    "look-on": following.LookOnReply,
    "describe-job": description.Description,
    # What else there is in these is checked where it is used.
    "send": dict[str, Any],
    "carry-out": dict[str, Any],
    "logs": dict[str, Any],
    "watch": dict[str, Any],
    "fill": dict[str, Any],
}


def read_reply(stream: BinaryIO, verb: str, where: str) -> tuple[dict[str, Any] | None, str]:
    """
    Return the reply, or None if there is none, and what was printed before it.

    :param where: the cluster, for messages.
    :return: a reply with ``ok``, as the protocol has it for the verb, or with ``error``, a fault.
    :raises GpuClusterSetupError: something prints without end.
    :raises GpuClusterProtocolError: the reply is none of this verb's.
    """
    noise = bytearray()
    size = 0
    while size < _MOST_NOISE_BYTES:
        line = stream.readline(_MOST_NOISE_BYTES)
        if not line:
            return None, text_of(noise)
        if line.rstrip(b"\r\n").endswith(protocol.REPLY_MARK):
            text = stream.readline(MOST_REPLY_BYTES)
            if not text.endswith(b"\n") and len(text) < MOST_REPLY_BYTES:
                return None, text_of(noise)
            return _checked_reply(text, verb, where), text_of(noise)
        # Signs of life are empty lines; they count, because something may also print empty lines without end.
        size += len(line)
        noise += line.lstrip(b"\n")
    raise GpuClusterSetupError(f"{where} {PRINTS_WITHOUT_END}")


def _checked_reply(text: bytes, verb: str, where: str) -> dict[str, Any]:
    try:
        reply = checked(parsed(text), dict[str, Any])
        if "error" in reply:
            return {"error": checked(reply["error"], replies.Fault)}
        return {"ok": checked(reply.get("ok"), _REPLIES[verb])}
    except WrongType as error:
        raise garbled(where, f"gpu-run {verb}", str(error), text) from error


def reply_of(value: Any, verb: str, where: str) -> Any:
    """
    Return the reply of a verb that came over a ``watch``.

    :raises GpuClusterProtocolError: it is none of this verb's.
    """
    try:
        return checked(value, _REPLIES[verb])
    except WrongType as error:
        raise garbled(where, f"gpu-run {verb}", str(error)) from error


def parsed(text: bytes | bytearray) -> Any:
    """
    Return the value of a line of JSON.

    :raises WrongType: it is none, or too large.
    """
    if not text.endswith(b"\n"):
        raise WrongType(f"it is longer than {len(text)} bytes")
    if text.count(b",") > MOST_VALUES:
        raise WrongType(f"it has more than {MOST_VALUES} values")
    try:
        return json.loads(text)
    except RecursionError:
        raise WrongType("it is nested too deeply") from None
    except ValueError as error:
        raise WrongType(f"it is no JSON ({cleaned(str(error), 100)})") from None


def garbled(where: str, what: str, why: str, text: bytes | bytearray = b"") -> GpuClusterProtocolError:
    """
    Return the error for something that no gpu-run answers.

    :param where: the cluster.
    :param what: which part of it, such as ``gpu-run status``.
    :param why: what is wrong with it.
    :param text: what came, of which the beginning is shown.
    """
    shown = cleaned(bytes(text[:_SHOWN_CHARACTERS]).decode("ascii", "backslashreplace")).strip()
    seen = f": {shown}" if shown else ""
    return GpuClusterProtocolError(
        f"{where}: the answer of {what} cannot be right: {cleaned(why, 300)}. Nothing of it was used; see whether "
        f"something on the cluster changes what commands print, or removes or changes files in .gpu-run there{seen}"
    )
