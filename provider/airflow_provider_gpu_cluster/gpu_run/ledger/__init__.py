"""The books of a cluster: what its jobs have used, what was transferred, and who has done what."""
