"""Who computes on which GPU, as nvidia-smi tells it."""

from __future__ import annotations

import os
import re

# A GPU counts as taken if more of its memory is in use while no process is listed: processes in other containers are
# not listed, nor is one that died and still holds memory. Drivers keep up to 0.6 GiB of an idle GPU for themselves, and
# a desktop, whose processes do not compute, often takes as much.
UNLISTED_MIB = 1024

# A process in another container has no number here, only a word in brackets.
_LINE = re.compile(r"\s*([A-Za-z0-9-]+(?:/\d+/\d+)?), *(\d+|\[[^\],]*\]|N/A|-), *(.*?)\s*\Z")


def parse_busy(text: str) -> dict[str, str]:
    """
    Read the output of ``nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name --format=csv,noheader,nounits``.

    The owner of a process chooses its name, which may contain commas and quotes; nvidia-smi prints it unchanged.

    :return: the GPUs or MIG instances on which a process computes, each with a few words on the process.
    """
    busy = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        # The MPS server runs on every GPU it serves, whether in use or not.
        if match and not match.group(3).endswith("nvidia-cuda-mps-server"):
            key, pid, name = match.groups()
            if pid.isdigit():
                busy[key] = f"process {pid} ({os.path.basename(name)})"
            else:
                busy[key] = f"a process without a number here ({os.path.basename(name)}), of a container perhaps"
    return busy
