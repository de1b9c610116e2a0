"""Why a job has failed: what its output, its exit code and the host say, weighed against each other."""
