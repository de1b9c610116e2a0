"""What Airflow's triggerer runs: launching, watching and following jobs."""
