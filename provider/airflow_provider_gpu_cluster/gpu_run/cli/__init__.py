"""Commands for a person on the host: run a script on leased GPUs, remove old jobs."""
