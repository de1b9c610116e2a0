// One job, with all that is known about it.

import { Chakra, html, React } from "../airflow.js";
import { get, jobPath } from "../api.js";

/** @param {{dagId: string, runId: string, taskId: string, mapIndex?: string, jobId?: string}} props */
export function JobPage(props) {
  const [job, setJob] = React.useState(null);
  const [error, setError] = React.useState("");
  React.useEffect(() => {
    get(jobPath(props)).then(setJob, (failure) => setError(failure.message));
  }, [props.dagId, props.runId, props.taskId, props.mapIndex, props.jobId]);
  if (error) return html`<${Chakra.Text} role="alert">${error}<//>`;
  if (!job) return html`<${Chakra.Spinner} role="status" aria-label="The job is asked for" />`;
  return html`<${Chakra.Box} p=${2}><${Chakra.Heading} size="md">${job.job_id}<//>${job.state}<//>`;
}
