"""The log of a process that a test starts."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TextIO

import structlog


def begin_own_log(path: Path) -> TextIO:
    """Let all that this process says from now on go to a file."""
    log = open(path, "a")  # noqa: SIM115 (it is the process's own to its end)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    logging.disable(logging.ERROR)
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer()], logger_factory=structlog.PrintLoggerFactory(log)
    )
    return log
