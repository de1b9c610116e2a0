"""Run GPU jobs on clusters that can only be reached by SSH, as Airflow tasks."""

__version__ = "0.1.0"
