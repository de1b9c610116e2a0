"""Send news of jobs and their output to a client that stays connected."""
