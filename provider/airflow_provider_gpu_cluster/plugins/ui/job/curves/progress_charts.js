// Charts of the numbers that a job has reported: one for each, or all in one.

import { Chakra, html, React } from "../../airflow.js";
import { countText } from "../../parts/number_text.js";
import { Empty } from "../../parts/notice.js";
import { timeText } from "../../parts/time_text.js";
import { Chart, CHART_PX } from "./chart.js";
import { metricsOf } from "./history.js";
import { MetricPicker, MOST_SHOWN } from "./metric_picker.js";
import { plotOf } from "./plot.js";
import { WhenSeen } from "./seen.js";
import { unitOf, xText } from "./units.js";
import { attemptMarks, markText } from "./use_places.js";
import { NumbersTable, ValuesTable } from "./values_table.js";

/** Names of the metrics that are shown. @param {import("./history.js").History} history @param {string[] | null} chosen */
export function shownMetrics(history, chosen) {
  const known = new Set(history.names.map(({ name }) => name));
  return chosen ? chosen.filter((name) => known.has(name)).slice(0, MOST_SHOWN) : metricsOf(history).map(({ name }) => name).filter((name) => history.curves.has(name));
}

/** @param {{history: import("./history.js").History, over: "x" | "t" | "at", chosen: string[] | null, choose: (names: string[] | null) => void,
 *   smoothing: number, isLog: boolean, isTogether: boolean, isTable: boolean, zone: string}} props and those of `Chart` */
export function ProgressCharts({ history, over, chosen, choose, smoothing, isLog, isTogether, isTable, ...common }) {
  const metrics = metricsOf(history);
  const shown = shownMetrics(history, chosen);
  const xName = over === "t" ? "time" : over === "at" ? "place in PROGRESS_FILE" : history.x;
  const groups = isTogether ? (shown.length ? [shown] : []) : shown.map((name) => [name]);
  return html`<${Chakra.Box} minW=${0}>
    ${metrics.length > 1 && html`<${MetricPicker} metrics=${metrics} moreNames=${history.moreNames} shown=${shown} choose=${choose} />`}
    ${!shown.length && html`<${Empty}>No metric is chosen.<//>`}
    ${isTable
      ? html`<${NumbersTable} names=${history.names.filter(({ name }) => shown.includes(name))} />`
      : null}
    <${Chakra.SimpleGrid} minChildWidth=${isTogether || isTable ? "100%" : "min(20rem, 100%)"} gap=${3}>
      ${groups.map((names) => html`<${ProgressChart} key=${names.length > 1 ? "all" : names[0]} names=${names} xName=${xName} ...${{ history, over, smoothing, isLog, isTable, ...common }} />`)}
    <//>
  <//>`;
}

function ProgressChart({ names, history, over, xName, smoothing, isLog, isTable, zone, ...common }) {
  const points = names.map((name) => history.curves.get(name) ?? []);
  const plot = React.useMemo(
    () => plotOf(names.map((name, index) => ({ name, label: name, points: points[index] })), history.sections, { over, smoothing, isLog }),
    [JSON.stringify(names), ...padded(points), history.sections, over, smoothing, isLog],
  );
  const marks = React.useMemo(() => {
    if (over === "t") return attemptMarks(history.sections);
    const reasons = new Map(history.sections.map(({ attempt, resumed_from }) => [attempt, resumed_from]));
    return plot.borders.map(({ x, attempt }) => ({ x, text: markText(attempt, reasons.get(attempt)) }));
  }, [plot, history.sections, over]);
  const title = names.length > 1 ? countText(names.length, "metric") : names[0];
  if (isTable) {
    return html`<${ValuesTable} title=${`${title} over ${xName}`} plot=${plot} xName=${xName} xText=${(x) => (over === "t" ? timeText(1000 * x, zone) : xText(x))} unitOfLine=${() => unitOf("")} />`;
  }
  const remarks = [
    plot.without && `${countText(plot.without, "point")} without ${over === "t" ? "a known time" : xName}`,
    plot.notAboveZero && `${countText(plot.notAboveZero, "value")} not above zero, which a log scale cannot show`,
  ].filter(Boolean);
  return html`<${Chakra.Box} minW=${0}>
    <${WhenSeen} minH=${`${CHART_PX + 60}px`} make=${() => html`<${Chart} title=${title} plot=${plot} over=${over} xName=${xName} unit=${unitOf("")} isLog=${isLog} zone=${zone} marks=${marks} ...${common} />`} />
    ${remarks.length > 0 && html`<${Chakra.Text} fontSize="xs" color="fg.muted">Not drawn: ${remarks.join("; ")}.<//>`}
  <//>`;
}

/** A list of a fixed length, as React wants the things that a memo depends on. */
const padded = (points) => Array.from({ length: MOST_SHOWN }, (_, index) => points[index] ?? null);
