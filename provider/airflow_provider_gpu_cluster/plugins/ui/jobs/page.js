// All jobs of this Airflow, or those of a DAG run.

import { Chakra, html } from "../airflow.js";
import { Busy, Empty, Notice, Spoken } from "../parts/notice.js";
import { countText } from "../parts/number_text.js";
import { hoursText } from "./columns.js";
import { Filters } from "./filters.js";
import { Paging } from "./paging.js";
import { isFiltered, unfiltered } from "./query.js";
import { JobsTable } from "./table.js";
import { useJobs } from "./use_jobs.js";
import { useQuery } from "./use_query.js";

const DOCS = "https://github.com/airflow-provider-gpu-cluster/airflow-provider-gpu-cluster/blob/main/docs/operators.md";

/** @param {{dagId?: string, runId?: string}} props of a DAG run; without them, all jobs are shown */
export function JobsPage({ dagId, runId }) {
  const ofRun = Boolean(runId);
  const [query, change] = useQuery();
  const { answer, error, isAsking } = useJobs(query, ofRun ? { dag_id: dagId, run_id: runId } : {});
  if (!answer) return error ? html`<${Notice} status="error" mt=${2}>${error.message}<//>` : html`<${Busy} label="The jobs are being read" />`;
  if (!answer.is_migrated) return html`<${Notice} status="warning" mt=${2}>${answer.problem}<//>`;
  const old = error && html`<${Notice} status="error">${error.message} The list is as it was before.<//>`;
  if (!answer.total && !isFiltered(query)) return html`${old}<${None} answer=${answer} query=${query} change=${change} ofRun=${ofRun} />`;
  const label = ofRun ? "GPU jobs of this run" : "GPU jobs";
  return html`
    ${old}
    <${Filters} query=${query} change=${change} ofRun=${ofRun} />
    <${Sums} answer=${answer} />
    ${
      answer.jobs.length
        ? html`<${JobsTable} jobs=${answer.jobs} query=${query} onOrder=${(orderBy) => change({ orderBy })} ofRun=${ofRun} isAsking=${isAsking} label=${label} />`
        : html`<${None} answer=${answer} query=${query} change=${change} ofRun=${ofRun} />`
    }
    <${Paging} query=${query} total=${answer.total} change=${change} />
    <${Spoken}>${answer.jobs.length} of ${countText(answer.total, "job")}<//>`;
}

/** What all jobs of the selection add up to. */
function Sums({ answer }) {
  const { total, gpu_hours: held, used_gpu_hours: used } = answer;
  const share = held > 0 ? `, ${Math.round((100 * used) / held)} % used` : "";
  return html`<${Chakra.Flex} align="baseline" gap=${3} my=${2} wrap="wrap">
    <${Chakra.Heading} as="h2" size="md">${countText(total, "GPU job")}<//>
    <${Chakra.Text} color="fg.muted" fontSize="sm">${hoursText(held)} GPU-hours${share}<//>
  <//>`;
}

/** Why the list is empty. */
function None({ answer, query, change, ofRun }) {
  if (answer.total) {
    return html`<${Empty}>The list ends before this page. <${Chakra.Button} size="xs" variant="outline" onClick=${() => change({ page: 1 })}>First page<//><//>`;
  }
  if (isFiltered(query)) {
    return html`<${Empty}>No job matches. <${Chakra.Button} size="xs" variant="outline" onClick=${() => change(unfiltered(query))}>Clear filters<//><//>`;
  }
  if (ofRun) return html`<${Empty}>No task of this run has launched a GPU job.<//>`;
  return html`<${Empty}>No task of a DAG that you may read has launched a GPU job. <${Chakra.Link} href=${DOCS} target="_blank" rel="noreferrer" color="fg.info">How a task launches one<//><//>`;
}
