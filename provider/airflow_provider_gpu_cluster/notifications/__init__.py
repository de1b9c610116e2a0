"""Telling people about jobs: as callbacks of tasks and DAGs, and while a job waits or runs."""
