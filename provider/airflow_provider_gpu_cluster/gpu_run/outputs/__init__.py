"""List and send a job's outputs."""
