// The pages that plugins/pages.py names. Airflow imports this file once, and takes each component by its name.

import { html } from "./airflow.js";
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

globalThis["GPU jobs"] = NavPage;
globalThis["GPU job"] = JobTab;
globalThis["GPU jobs of the run"] = RunTab;
