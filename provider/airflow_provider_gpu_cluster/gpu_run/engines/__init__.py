"""How jobs get to run, one module per kind of cluster."""
