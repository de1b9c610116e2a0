"""The REST side of the pages, below ``/gpu-cluster/api``: one module for each thing that can be asked for."""
