"""Inputs of jobs, kept once for all jobs: contents by their SHA-256, complete or still arriving."""
