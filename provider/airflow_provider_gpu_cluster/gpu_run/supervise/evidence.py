"""What is known of an end when a job has failed by itself: what it printed, what the kernel counted, and the disks."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from ..errors import traceback_text
from ..protocol.masks import are_masks, hidden
from ..verdict import log_ends
from ..verdict.judge import Evidence, Verdict, judge
from ..verdict.room import is_over_quota, without_room

if TYPE_CHECKING:
    from ..store.directories import Attempt
    from .killed_workers import KilledWorkers

_RUN_SCRIPT_BYTES = 1 << 16
# By so many bytes it is seen whether the disk has lost the last errors.
_COMPARED_BYTES = 4096


def verdict_of(
    attempt: Attempt, last_errors: bytes, killed_workers: KilledWorkers, exit_code: int | None, number: int | None
) -> Verdict:
    """
    Return why a job has failed.

    :param last_errors: the end of stderr, from memory, as a full disk may have lost the message about itself.
    :param exit_code: of the code; None after a signal.
    :param number: the signal that ended it.
    """
    job, request, starts = attempt.job, attempt.request(), attempt.log_starts()
    errors = log_ends.output_since(job.at("logs", "error.log"), starts["error"])
    output = log_ends.output_since(job.at("logs", "training.log"), starts["training"])
    if not errors.endswith(last_errors[-_COMPARED_BYTES:]):
        errors += b"\n" + last_errors
        output += b"\n" + last_errors
    text, words = output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")
    ending = words[-log_ends.TAIL_BYTES :] + text[-log_ends.TAIL_BYTES :]
    is_killed = number == signal.SIGKILL or exit_code == 128 + signal.SIGKILL
    code = request.get("cwd") or job.at("code")
    full = without_room(job.path, code, ending)
    over_quota = is_over_quota(job.path)
    masks = request.get("masks")
    evidence = Evidence(
        exit_code,
        number,
        text,
        words,
        main_killed=is_killed and killed_workers.has_counted(),
        worker_killed=killed_workers.is_likely(ending),
        full=(job.path,) if over_quota else full,
        is_over_quota=over_quota,
        code=job.at("code"),
        run_script=log_ends.read_end(job.at("run.sh"), _RUN_SCRIPT_BYTES).decode("utf-8", "replace"),
        hide=(lambda said: hidden(said, masks)) if are_masks(masks) else str,
    )
    try:
        return judge(evidence)
    except Exception:  # a job's output may contain anything
        attempt.event("verdict_error", traceback=traceback_text())
        return judge(evidence._replace(output="", errors=""))
