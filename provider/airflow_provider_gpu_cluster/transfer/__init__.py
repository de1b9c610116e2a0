"""Files on their way: inputs to the cluster, outputs from it."""
