"""Shows a job's output in the task log."""
