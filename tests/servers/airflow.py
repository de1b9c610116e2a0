"""A whole Airflow, the one that the demo starts: API server, scheduler, DAG processor, triggerer."""

from __future__ import annotations

import sys
from pathlib import Path

# It stands in a folder that is no package, since the demo runs without tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from whole_airflow import AirflowFailed, WholeAirflow

__all__ = ["AirflowFailed", "WholeAirflow"]
