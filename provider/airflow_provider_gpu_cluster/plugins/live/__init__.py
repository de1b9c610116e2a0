"""What makes the pages live: one connection to each cluster that somebody looks at, and any number of viewers."""
