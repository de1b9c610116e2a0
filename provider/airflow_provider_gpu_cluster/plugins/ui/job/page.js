// One job, with all that is known about it: its head, and below it one of several views.

import { Chakra, html, React, Router } from "../airflow.js";
import { useLive } from "../parts/live.js";
import { Busy } from "../parts/notice.js";
import { Head } from "./head.js";
import { Details } from "./details.js";
import { ElementsPanel } from "./elements/panel.js";
import { LogPanel } from "./log/panel.js";
import { NoJob } from "./no_job.js";
import { OutputsPanel } from "./outputs/panel.js";
import { Overview } from "./overview.js";

// The views of a job, by the word in the page's address. Each gets {address, job, live}; `isFor` says of which jobs.
const VIEWS = [
  { name: "overview", label: "Overview", View: Overview },
  { name: "log", label: "Log", View: LogPanel },
  { name: "elements", label: "Elements", View: ElementsPanel, isFor: (job) => Boolean(job.array) },
  { name: "outputs", label: "Outputs", View: OutputsPanel },
  { name: "details", label: "Details", View: Details },
];

/**
 * @param {{dagId: string, runId: string, taskId: string, mapIndex?: string, jobId?: string}} props
 *   as Airflow gives them; an element, an earlier job and an earlier cluster are in the page's query.
 */
export function JobPage({ dagId, runId, taskId, mapIndex = "-1", jobId = null }) {
  const [query, setQuery] = Router.useSearchParams();
  const element = query.get("element");
  const earlier = jobId ?? query.get("job_id");
  const connId = query.get("conn_id");
  const address = React.useMemo(
    () => ({ dagId, runId, taskId, mapIndex, element, jobId: earlier, connId }),
    [dagId, runId, taskId, mapIndex, element, earlier, connId],
  );
  const live = useLive(address);
  const { job, error } = live;

  if (!job) return error ? html`<${NoJob} address=${address} error=${error} />` : html`<${Busy} label="The job is asked for." />`;

  const views = VIEWS.filter(({ isFor }) => !isFor || isFor(job));
  const shown = views.find(({ name }) => name === query.get("show")) ?? views[0];
  const show = ({ value }) =>
    setQuery((before) => {
      const after = new URLSearchParams(before);
      after.set("show", value);
      return after;
    }, { replace: true });
  return html`<${Chakra.Box} p=${2} minW=${0}>
    <${Head} address=${address} job=${job} live=${live} />
    <${Chakra.Tabs.Root} value=${shown.name} onValueChange=${show} lazyMount unmountOnExit size="sm" variant="line">
      <${Chakra.Tabs.List} aria-label="Views of the job" overflowX="auto">
        ${views.map(({ name, label }) => html`<${Chakra.Tabs.Trigger} key=${name} value=${name} whiteSpace="nowrap">${label}<//>`)}
      <//>
      ${views.map(({ name, View }) => html`<${Chakra.Tabs.Content} key=${name} value=${name} minW=${0}><${View} address=${address} job=${job} live=${live} /><//>`)}
    <//>
  <//>`;
}
