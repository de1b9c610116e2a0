// All jobs of this Airflow, or those of a DAG run.

import { Chakra, html } from "../airflow.js";

/** @param {{dagId?: string, runId?: string}} props */
export function JobsPage({ dagId, runId }) {
  return html`<${Chakra.Heading} size="md">GPU jobs ${dagId} ${runId}<//>`;
}
