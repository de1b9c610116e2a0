"""A job's outputs, listed and sent."""
