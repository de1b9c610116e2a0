"""The engine that hands jobs to Slurm."""
