"""What a job has reported and used over time, thinned to what a chart can show."""
