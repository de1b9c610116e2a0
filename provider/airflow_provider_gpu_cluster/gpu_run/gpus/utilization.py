"""How busy GPUs are at this moment, as nvidia-smi tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

from ..errors import Refused
from . import nvidia_smi

if TYPE_CHECKING:
    from ..protocol.records import LeasedGpu

_QUERY = "--query-gpu=uuid,index,utilization.gpu"
# The supervisor does nothing else meanwhile.
_TIMEOUT_S = 10.0


def busiest_percent(gpus: Sequence[LeasedGpu]) -> int:
    """Return the utilization of the busiest of these GPUs, in percent; 0 also where that is not known."""
    if all(gpu["key"].startswith("virtual-") for gpu in gpus):
        return 0
    try:
        (answer,) = nvidia_smi.ask(_QUERY, timeout_s=_TIMEOUT_S)
    except Refused:
        return 0
    return parse(answer.text, gpus)


def parse(text: str, gpus: Sequence[LeasedGpu]) -> int:
    """Read the answer of nvidia-smi; see :func:`busiest_percent`."""
    rows = [[word.strip() for word in line.split(",")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[1].isdigit()]
    keys, indexes = {gpu["key"] for gpu in gpus}, {str(gpu["index"]) for gpu in gpus}
    own = [row for row in rows if row[0] in keys]
    if not own:
        # In the control group of a scheduler's job there are no others, and they count from 0.
        own = rows if len(rows) <= len(gpus) else [row for row in rows if row[1] in indexes]
    return max((int(row[2]) for row in own if row[2].isdigit()), default=0)
