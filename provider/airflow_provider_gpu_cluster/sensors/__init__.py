"""What waits for a job."""
