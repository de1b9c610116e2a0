"""Python environments for jobs, built once for all jobs that need the same packages."""
