"""
What the lines after a failure say: that they only follow from it, or that the program went on and ended otherwise.

An error that was caught and printed looks like one that ended the program. What was printed after it tells them apart.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Sequence

# Lines that say nothing about why a program ended, whatever comes before or after them.
_NOISE = (
    r"\s*$|[-=*_#~^ .+]{3,}$|srun: (?:error: .*(?:Exited with exit code|Terminated|Killed|Aborted)|Terminating"
    r"|Job step|Force Terminated|launch/slurm)|slurmstepd[-\w]*: error: \*\*\*"
    r"|[WIE]\d{4} [\d:.]+ +\d+ torch/|\[W\d{4} |\[?W\d{3,4} "
    r"|wandb: |Exception ignored in|make(?:\[\d+\])?: \*\*\*|make: |ERROR conda\.cli"
    r"|Command exited with non-zero status"
    r"|Primary job +terminated|a non-zero exit code|mpirun (?:detected|noticed)|Process name: \[\[|  Exit code: "
    r"|Execution halted|Calls: |\d+%\|| *\d+it \[|.*\b\d+(?:\.\d+)?it/s|.*(?:resource_tracker|leaked (?:semaphore"
    r"|shared_memory))"
    r"|.*Warning: |  warnings\.warn\(|.*destroy_process_group\(\) was not called|Setting OMP_NUM_THREADS"
    r"|For simplicity, JAX has removed|Set the environment variable HYDRA_FULL_ERROR|note: run with `RUST_BACKTRACE"
    r"|Node\.js v\d|in expression starting at|Stacktrace:|Require stack:|- /|[})\]]+[,;]?$|<---|goroutine \d"
    r"|runtime stack:|\+ |Terminated$|.*\(core dumped\)"
    r"|.{0,200}: line \d+: +\d+ (?:Aborted|Killed|Terminated|Segmentation fault|Bus error|Illegal instruction"
    r"|Floating)"
    r"|terminate called without an active exception|Fatal Python error: Aborted|frame #\d+: |Exception raised from "
    r"|CUDA kernel errors might be|For debugging consider passing|Compile with `TORCH_USE_CUDA_DSA`"
    r"|Segmentation fault$|Aborted$|Killed$|Bus error$|Illegal instruction$|Hangup$|\[\d+\]\+? +(?:Exit|Done|Killed)"
)
# What programs do and say once they have failed.
_CONSEQUENCE = (
    r"\s|at |fatal: |error: |Error: |.*(?:[Cc]lean|[Cc]los(?:e|ing)|[Rr]eleas|[Ff]ree(?:d|ing)|[Ss]hut|[Ss]topp"
    r"|[Kk]ill"
    r"|[Tt]erminat|\b[Ee]xit|[Dd]estroy|[Dd]elet|[Rr]emov|[Tt]ear|[Aa]bort|[Rr]olling back|[Dd]isconnect|[Uu]nmount"
    r"|[Cc]ancel|[Ff]ail|[Ee]rror|\berrno\b|[Cc]ould not|[Cc]annot|[Uu]nable|[Nn]ot available|[Ll]og (?:file|is)"
    r"|[Uu]sage:|--help|[Ss]ee also|[Tt]raceback|[Ss]tack|[Bb]acktrace|[Pp]lease|[Ii]nvalid|[Cc]rash|[Dd]ump)"
    r"|[Cc]opying|NVML library|and the repository exists|[Tt]ry '|[Dd]id you mean|Dumping|[│╰╭┌└|]|^\^|[Hh]int: "
    r"|[Nn]ote: "
    r"|tar: |gzip: |rsync|ulimit|runtime[./]|created by |main\.|OpenBLAS |- |\d+: 0x|Current thread |Thread 0x"
    r"|Extension modules|.{0,80}\bline \d+|[0-9]+ \w+ (?:skipped|left)"
)
# A line that tells of an ordinary step or of a result.
_PROGRESS = (
    r"(?i)\b(?:epoch|step|iter(?:ation)?|batch|round|trial|fold)\b\W{0,3}\d"
    r"|\b(?:loss|acc(?:uracy)?|f1|auc|bleu|rouge|wer|mse|mae|rmse|perplexity|ppl|score|reward|precision|recall|iou"
    r"|map|psnr)\b"
    r"[\w@ /-]{0,20}?(?:\W{1,3}| (?:is|was|of|at) )\d"
)
# A line in which a program judges its own result.
_OWN_VERDICT = (
    r"(?i)\b(?:gate|threshold|below|above|under|over|exceeds?|at least|at most|minimum|maximum|required|not (?:met"
    r"|reached|enough|good"
    r"|improved?|converged?)|did not (?:converge|improve|reach|pass)|too (?:low|high|small|large|few|many|slow|bad)"
    r"|regress(?:ed|ion)|worse than|less than|more than|quality|rejected|diverged|checks? failed|tests? failed"
    r"|expected \S+, got)\b"
)
_GOES_ON = r"(?i)\b(?:sav|keep|kept|best|continu|next|start|load|us(?:e|ing)\b|run|try|batch|step|epoch)"
# Words of a program that handles a failure, and goes on.
_HANDLED = (
    r"(?i)\b(?:trying|retrying|retries|will retry|skip(?:ping|ped)|ignor(?:ing|ed)|fall(?:ing|s)? ?back|continuing"
    r"|goes on|going on|going without|smaller (?:one|batch)|halving|recover(?:ed|ing)|(?:was|is|and) caught|handled"
    r"|not a failure"
    r"|using .{1,40} instead|passed)\b|^.{0,40}\b(?-i:INFO|DEBUG|WARN(?:ING)?|W\d{4})\b"
)
_FEW = 3


def is_noise(text: str) -> bool:
    """Return whether a line says nothing about why a program ended."""
    return re.match(_NOISE, text) is not None


def is_handled(text: str) -> bool:
    """Return whether a line tells of an error that its program has coped with."""
    return re.search(_HANDLED, text) is not None


def is_failed_test(text: str) -> bool:
    """Return whether a line says that a result is not good enough, and nothing of going on."""
    return (
        re.search(_OWN_VERDICT, text) is not None
        and re.search(r"\d", text) is not None
        and not re.search(_GOES_ON, text)
    )


def is_consequence(text: str) -> bool:
    """Return whether a line only follows from a failure before it."""
    return re.match(_CONSEQUENCE, text) is not None and not is_own_verdict(text)


def is_progress(text: str) -> bool:
    """Return whether a line tells of an ordinary step, or of a result in numbers."""
    return re.search(_PROGRESS, text) is not None


def is_own_verdict(text: str) -> bool:
    """Return whether a program tells of a result in a line."""
    return re.search(_PROGRESS, text) is not None or re.search(_OWN_VERDICT, text) is not None


def went_on(after: Sequence[str], exit_code: int | None) -> bool:
    """
    Return whether a program has gone on after an exception that it printed, and has ended for another reason.

    :param after: the lines after it.
    :param exit_code: Python ends with 1 if an exception ends it; None after a signal.
    """
    told = list(islice((text for text in reversed(after) if not is_noise(text)), _FEW))
    if any(is_own_verdict(text) and not re.search(_CLEANS, text) for text in told):
        return True
    if exit_code is None or exit_code == 1 or exit_code > 125 or not told:
        return False
    return not is_consequence(told[0])


_CLEANS = r"(?i)clean|clos|releas|free|shut|destroy|delet|remov|tear|kill|terminat|stopp|abort|exit|unmount"


def last_words(lines: Sequence[str]) -> str:
    """Return the last line that says something; empty when there is none."""
    told = (text for text in reversed(lines[-2000:]) if not is_noise(text) and not re.match(_RULES, text.strip()))
    return next((text.strip() for text in told), "")


_RULES = r"[\W_]+$"
