"""A Connection becomes a cluster."""
