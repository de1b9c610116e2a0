"""Transfers files: inputs to the cluster, outputs from it."""
