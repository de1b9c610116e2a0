"""Events of GPU jobs in Airflow's own metrics: StatsD, OpenTelemetry, Datadog, whatever the deployment has."""
