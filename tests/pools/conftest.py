"""Clusters of a pool: each has a folder and GPUs of its own, behind one SSH server, which a proxy may cut."""

from __future__ import annotations
