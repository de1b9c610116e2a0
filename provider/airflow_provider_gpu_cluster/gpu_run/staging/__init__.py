"""Inputs on their way into a job's directory, from the worker, from git, or from the cluster itself."""
