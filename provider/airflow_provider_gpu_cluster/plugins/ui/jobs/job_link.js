// Where a job is in Airflow: its task instance, and the tab that shows it. No React.

/** What tells a row from all others: a job that went from one cluster to another has a row for each. */
export const rowKey = (row) => `${row.conn_id} ${row.job_id}`;

/** Path of the tab of a row's job, as Airflow's router has it. */
export function jobLink(row) {
  // A job that went on on another cluster has the same id there.
  const query = row.is_latest === false ? `?${new URLSearchParams({ job_id: row.job_id, conn_id: row.conn_id })}` : "";
  return `${taskLink(row)}/plugin/gpu-job${query}`;
}

/** Path of a row's task instance. */
export function taskLink({ dag_id, run_id, task_id, map_index }) {
  const mapped = map_index >= 0 ? `/mapped/${map_index}` : "";
  return `${runLink({ dag_id, run_id })}/tasks/${encodeURIComponent(task_id)}${mapped}`;
}

/** Path of the tab that shows the jobs of a row's DAG run. */
export const runJobsLink = (row) => `${runLink(row)}/plugin/gpu-run-jobs`;

export const dagLink = ({ dag_id }) => `/dags/${encodeURIComponent(dag_id)}`;

const runLink = ({ dag_id, run_id }) => `${dagLink({ dag_id })}/runs/${encodeURIComponent(run_id)}`;
