"""Bring inputs into a job's directory: from the worker, with git, or from the cluster itself."""
