"""A job's output on its way into the task log."""
