"""Python environments for jobs, built once for all that need the same packages."""
