"""Garbage collection: remove jobs, cached inputs, environments and programs that are no longer used."""
