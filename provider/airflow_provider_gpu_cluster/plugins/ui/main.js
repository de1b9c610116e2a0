// The pages that plugins/pages.py names. Airflow imports this file once, and takes each component by its name.

import { Chakra, html } from "./airflow.js";
import { ClustersPage } from "./clusters/page.js";
import { JobPage } from "./job/page.js";
import { JobsPage } from "./jobs/page.js";
import { Router } from "./airflow.js";

/** The page in the navigation: all jobs, one of them, or the clusters. */
function NavPage() {
  const [query] = Router.useSearchParams();
  if (query.get("view") === "clusters") return html`<${ClustersPage} />`;
  if (query.has("task_id")) {
    return html`<${JobPage}
      dagId=${query.get("dag_id")} runId=${query.get("run_id")} taskId=${query.get("task_id")}
      mapIndex=${query.get("map_index") ?? "-1"} jobId=${query.get("job_id")} />`;
  }
  return html`<${JobsPage} />`;
}

/** The tab of a task instance. */
const JobTab = (props) => html`<${JobPage} ...${props} />`;

/** The tab of a DAG run. */
const RunTab = ({ dagId, runId }) => html`<${JobsPage} dagId=${dagId} runId=${runId} />`;

/** What all pages have in common: an element by which ours is told from Airflow's frame. */
const framed = (Page) => (props) => html`<${Chakra.Box} data-gpu-cluster="" minW=${0}><${Page} ...${props} /><//>`;

globalThis["GPU jobs"] = framed(NavPage);
globalThis["GPU job"] = framed(JobTab);
globalThis["GPU jobs of the run"] = framed(RunTab);
