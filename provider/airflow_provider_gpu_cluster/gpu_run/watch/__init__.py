"""News of jobs and their output, for a client that stays connected."""
