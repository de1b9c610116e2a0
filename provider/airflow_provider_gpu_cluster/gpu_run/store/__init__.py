"""The directories and records of jobs."""
