// The pages that plugins/pages.py names. Airflow imports this file once, and takes each component by its name.

import { Chakra, html, React, Router } from "./airflow.js";
import { NEEDED } from "./modules.js";
import { NavTabs } from "./nav_tabs.js";
import { Busy } from "./parts/notice.js";

const ClustersPage = page("./clusters/page.js", "ClustersPage");
const JobPage = page("./job/page.js", "JobPage");
const JobsPage = page("./jobs/page.js", "JobsPage");

/** A component that is loaded when it is shown, all of its modules at once: alone, the browser would come upon them one after the other. */
function page(module, name) {
  return React.lazy(() => {
    for (const needed of NEEDED[module]) {
      const link = Object.assign(document.createElement("link"), { rel: "modulepreload", href: new URL(needed, import.meta.url).href });
      document.head.append(link);
    }
    return import(module).then((loaded) => ({ default: loaded[name] }));
  });
}

/** The page in the navigation: all jobs, one of them, or the clusters. */
function NavPage() {
  const [query] = Router.useSearchParams();
  const view = query.get("view") ?? "jobs";
  useTitle({ clusters: "GPU clusters" }[view] ?? "GPU jobs");
  return html`<${Chakra.Box} p=${2}>
    <${NavTabs} view=${view} />
    ${view === "clusters" ? html`<${ClustersPage} />` : view === "job" ? html`<${JobOfQuery} query=${query} />` : html`<${JobsPage} />`}
  <//>`;
}

/** A job whose task instance Airflow does not have any more. */
const JobOfQuery = ({ query }) => html`<${JobPage} dagId=${query.get("dag_id")} runId=${query.get("run_id")} taskId=${query.get("task_id")}
  mapIndex=${query.get("map_index") ?? "-1"} />`;

/** The tab of a task instance. */
function JobTab(props) {
  useTitle(`${props.taskId} - GPU job`);
  return html`<${JobPage} ...${props} />`;
}

/** The tab of a DAG run. */
function RunTab({ dagId, runId }) {
  useTitle(`${dagId} - GPU jobs of the run`);
  return html`<${Chakra.Box} pt=${2}><${JobsPage} dagId=${dagId} runId=${runId} /><//>`;
}

/** Names the page, as long as it is open, in the browser's tabs and history. */
function useTitle(title) {
  React.useEffect(() => {
    const before = document.title;
    document.title = `${title} - Airflow`;
    return () => {
      document.title = before;
    };
  }, [title]);
}

/** What all pages have in common: an element by which ours is told from Airflow's frame. */
const framed = (Page) => (props) => html`<${Chakra.Box} data-gpu-cluster="" minW=${0}>
  <${React.Suspense} fallback=${html`<${Busy} label="The page is loaded." />`}><${Page} ...${props} /><//>
<//>`;

globalThis["GPU jobs"] = framed(NavPage);
globalThis["GPU job"] = framed(JobTab);
globalThis["GPU jobs of the run"] = framed(RunTab);
