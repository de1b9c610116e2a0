"""The whole life of a job as a group of tasks."""
