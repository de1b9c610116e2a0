// The task of a job, as Airflow's own API tells it, with Airflow's own rights.

import { getAirflow, postAirflow } from "../api.js";

const runPath = ({ dagId, runId }) => `dags/${encodeURIComponent(dagId)}/dagRuns/${encodeURIComponent(runId)}`;

const taskPath = (job) => {
  const mapped = Number(job.mapIndex ?? -1) >= 0 ? `/${job.mapIndex}` : "";
  return `${runPath(job)}/taskInstances/${encodeURIComponent(job.taskId)}${mapped}`;
};

/** The task instance: its state, and how often it was tried. */
export const taskOf = (job) => getAirflow(taskPath(job));

/** Clear the task and all that follow it, or with `dryRun` only tell which those are. */
export function clear(job, dryRun) {
  const index = Number(job.mapIndex ?? -1);
  return postAirflow(`dags/${encodeURIComponent(job.dagId)}/clearTaskInstances`, {
    dry_run: dryRun,
    dag_run_id: job.runId,
    task_ids: [index >= 0 ? [job.taskId, index] : job.taskId],
    include_downstream: true,
    only_failed: false,
    reset_dag_runs: true,
  });
}

/** The log of a try of the task, as events. */
export async function logOf(job, tryNumber, options = {}) {
  const answer = await getAirflow(`${taskPathWithIndexInQuery(job)}/logs/${tryNumber}?map_index=${job.mapIndex ?? -1}`, {
    headers: { Accept: "application/json" },
    ...options,
  });
  return Array.isArray(answer.content) ? answer.content : [];
}

const taskPathWithIndexInQuery = (job) => `${runPath(job)}/taskInstances/${encodeURIComponent(job.taskId)}`;
