"""The GPUs of a host: which exist, who has leased them, who is queued, and who is next."""
