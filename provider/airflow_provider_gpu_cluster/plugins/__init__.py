"""What the API server runs: the page of a job, and the ends that users give to tasks by hand."""
