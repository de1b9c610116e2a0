"""Which errors Airflow retries a task after, and when."""
