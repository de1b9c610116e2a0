"""The product name of this host's GPUs, from the files of the driver, so that nothing has to be run for it."""

from __future__ import annotations

import glob
import os
import re

from ..linux import regular_files

_FOLDER = "/proc/driver/nvidia/gpus"
_MODEL = re.compile(rb"^Model:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_MOST_BYTES = 1 << 14


def model_here(folder: str = _FOLDER) -> str | None:
    """
    Return what all GPUs of this host are; None if there are none, or several kinds of them.

    :param folder: of the driver, with a folder for each GPU.
    """
    models = set()
    for path in glob.glob(os.path.join(folder, "*", "information")):
        try:
            found = _MODEL.search(regular_files.read(path, _MOST_BYTES))
        except OSError:
            return None
        models.add(None if found is None else found.group(1).decode("utf-8", "replace"))
    return models.pop() if len(models) == 1 else None
