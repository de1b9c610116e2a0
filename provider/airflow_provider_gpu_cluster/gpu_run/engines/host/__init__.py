"""The engine of a bare host: its own queue, and a supervisor for each job."""
