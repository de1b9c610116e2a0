"""The commands of ``airflow gpu-cluster``."""
