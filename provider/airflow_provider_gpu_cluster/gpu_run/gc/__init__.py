"""Clearing away what is of no use any more: jobs, cached inputs, environments, programs."""
