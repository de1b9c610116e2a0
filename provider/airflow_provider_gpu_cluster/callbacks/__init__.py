"""What Airflow's DAG processor runs when a DAG run has ended."""
