"""Whether, and when, a job goes on in a next attempt by itself."""
