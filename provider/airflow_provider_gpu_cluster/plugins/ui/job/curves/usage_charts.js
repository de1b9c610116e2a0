// Charts of what a job has used: each GPU's use and memory, host memory and processors, over time.

import { Chakra, html, React } from "../../airflow.js";
import { bytesText } from "../../parts/number_text.js";
import { Busy, Empty, Notice } from "../../parts/notice.js";
import { Section } from "../../parts/section.js";
import { timeText } from "../../parts/time_text.js";
import { Chart, CHART_PX } from "./chart.js";
import { plotOf } from "./plot.js";
import { WhenSeen } from "./seen.js";
import { unitOf } from "./units.js";
import { attemptMarks } from "./use_places.js";
import { usageGroups } from "./usage_groups.js";
import { ValuesTable } from "./values_table.js";

/** @param {{usage: object, job: object, isTable: boolean, zone: string}} props and those of `Chart` */
export function UsageCharts({ usage, job, isTable, zone, ...common }) {
  const { history, isLoaded, error } = usage;
  const groups = usageGroups([...history.curves.keys()]);
  const marks = React.useMemo(() => attemptMarks(history.sections), [history.sections]);
  const hasGpus = groups.some(({ unit }) => unit === "percent");
  return html`<${Section} title="GPUs and host">
    ${error && html`<${Notice} status="warning">${error.message}<//>`}
    ${history.problem && html`<${Notice} status="warning">${history.problem}<//>`}
    ${!isLoaded && !error && html`<${Busy} label="What the job has used is read." />`}
    ${isLoaded && !groups.length && html`<${Empty}>${job.is_final ? "Nothing was measured." : "Nothing is measured yet."}<//>`}
    ${groups.length > 0 && !hasGpus && html`<${Empty}>${job.usage?.why_not ? `The GPUs are not measured: ${job.usage.why_not}.` : "The GPUs are not measured."}<//>`}
    ${history.leftOutBytes > 0 && html`<${Chakra.Text} fontSize="xs" color="fg.muted" mb=${2}>The first ${bytesText(history.leftOutBytes)} of the samples are left out.<//>`}
    <${Chakra.SimpleGrid} minChildWidth=${isTable ? "100%" : "min(20rem, 100%)"} gap=${3}>
      ${groups.map((group) => html`<${UsageChart} key=${group.unit} group=${group} history=${history} marks=${marks} isTable=${isTable} zone=${zone} ...${common} />`)}
    <//>
  <//>`;
}

function UsageChart({ group, history, marks, isTable, zone, ...common }) {
  const unit = unitOf(group.unit);
  // Places in this history are moments.
  const plot = React.useMemo(() => {
    const sections = history.sections.map((one) => ({ ...one, at: Date.parse(one.started_at ?? "") })).filter(({ at }) => Number.isFinite(at));
    return plotOf(group.curves.map(({ name, label }) => ({ name, label, points: history.curves.get(name) ?? [] })), sections, { over: "t" });
  }, [history]);
  if (isTable) return html`<${ValuesTable} title=${`${unit.title} over time`} plot=${plot} xName="time" xText=${(t) => timeText(1000 * t, zone)} unitOfLine=${() => unit} />`;
  return html`<${WhenSeen} minH=${`${CHART_PX + 60}px`} make=${() => html`<${Chart} title=${unit.title} plot=${plot} over="t" xName="time" unit=${unit} zone=${zone} marks=${marks} ...${common} />`} />`;
}
