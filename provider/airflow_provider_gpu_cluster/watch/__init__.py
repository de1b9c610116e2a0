"""One watcher for all jobs of a cluster, over one connection."""
