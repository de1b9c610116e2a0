"""The GPUs of a host: which there are, who has leased them, who is queued, and who is next."""
