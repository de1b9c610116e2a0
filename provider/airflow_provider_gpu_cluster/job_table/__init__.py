"""The table of all jobs, in Airflow's own database: it is there when clusters are not, and keeps what others delete."""
