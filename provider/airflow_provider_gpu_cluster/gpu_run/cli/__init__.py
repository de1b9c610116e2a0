"""The calls of a person on the host: run a script on leased GPUs, clear old jobs away."""
