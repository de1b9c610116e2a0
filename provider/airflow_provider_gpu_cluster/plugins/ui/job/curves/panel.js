// The curves of a job: every number that it has reported, and what it has used.

import { Chakra, html, React } from "../../airflow.js";
import { countText, bytesText } from "../../parts/number_text.js";
import { Busy, Empty, Notice, Spoken } from "../../parts/notice.js";
import { Section } from "../../parts/section.js";
import { useZone } from "../../parts/time.js";
import { Choice, Smoothing, Toggle } from "./controls.js";
import { namesForX } from "./history.js";
import { placesOf } from "./places.js";
import { ProgressCharts, shownMetrics } from "./progress_charts.js";
import { useStored } from "./stored.js";
import { UsageCharts } from "./usage_charts.js";
import { useHistory } from "./use_history.js";
import { useCursorBus } from "./use_places.js";

const STYLES = new URL("../../third_party/uplot-1.6.32/uplot.css", import.meta.url).href;
const TIME = "time:"; // no metric has that name, as it would be "time:" of a nested object without a name
const ORDER = "order:";

/** @param {{address: object, job: object, live: object}} props */
export function CurvesPanel({ address, job, live }) {
  useStyles();
  const zone = useZone();
  const bus = useCursorBus();
  const task = `curves.${address.dagId}.${address.taskId}`;
  const [chosenX, setChosenX] = useStored(`${task}.x`, null, (value) => typeof value === "string");
  const [chosen, setChosen] = useStored(`${task}.metrics`, null, (value) => Array.isArray(value) && value.every((one) => typeof one === "string"));
  const [smoothing, setSmoothing] = useStored("curves.smoothing", 0, (value) => value >= 0 && value < 1);
  const [isLog, setIsLog] = useStored("curves.log", false, (value) => typeof value === "boolean");
  const [isTogether, setIsTogether] = useStored("curves.together", false, (value) => typeof value === "boolean");
  const [isTable, setIsTable] = React.useState(false);
  const [zoom, setZoom] = React.useState(null);
  const [spoken, setSpoken] = React.useState("");

  const isName = chosenX !== null && chosenX !== TIME && chosenX !== ORDER;
  const progress = useHistory(address, "progress", { x: isName ? chosenX : null, names: chosen, job, live });
  const usage = useHistory(address, "usage", { job, live });
  const { history } = progress;

  const hasTimes = history.times !== "none";
  const over = (chosenX === TIME && hasTimes) || (!history.x && chosenX !== ORDER && hasTimes) ? "t" : chosenX === ORDER || !history.x ? "at" : "x";
  const choices = [
    ...[...new Set([history.x, ...namesForX(history)])].filter(Boolean).map((name) => ({ value: name, label: name })),
    ...(hasTimes ? [{ value: TIME, label: "time" }] : []),
    { value: ORDER, label: "order of the lines" },
  ];
  const shown = shownMetrics(history, chosen);
  const reference = history.curves.get(shown[0]) ?? [];
  const places = React.useMemo(() => placesOf(reference), [reference]);
  const common = { zone, bus, places, zoom, onZoom: setZoom, speak: setSpoken, isTable };

  const isEmpty = progress.isLoaded && !history.names.length;
  return html`<${Chakra.Box} minW=${0}>
    <${Section} title="Curves" actions=${html`<${Chakra.Flex} wrap="wrap" columnGap=${4} rowGap=${2} align="center">
        ${!isEmpty && html`<${Choice} label="X axis" value=${over === "t" ? TIME : over === "at" ? ORDER : history.x} choose=${(value) => (setZoom(null), setChosenX(value))} options=${choices} />
        <${Smoothing} value=${smoothing} choose=${setSmoothing} />
        <${Toggle} label="Log scale" isOn=${isLog} choose=${setIsLog} />
        <${Toggle} label="In one chart" isOn=${isTogether} choose=${setIsTogether} />`}
        <${Toggle} label="As a table" isOn=${isTable} choose=${setIsTable} />
        <${Chakra.Button} size="xs" variant="outline" disabled=${!zoom} onClick=${() => setZoom(null)}>Reset zoom<//>
      <//>`}>
      ${progress.error && html`<${Notice} status="warning">${progress.error.message}<//>`}
      ${!progress.isLoaded && !progress.error && html`<${Busy} label="The job's progress is read." />`}
      ${isEmpty && html`<${Empty}>This job has reported no numbers. A line of JSON that it appends to $PROGRESS_FILE, such as {"step": 40, "loss": 0.31}, becomes a point of a curve.<//>`}
      ${history.problem && html`<${Notice} status="warning">${history.problem}<//>`}
      <${Incomplete} ...${progress} />
      <${Remarks} history=${history} over=${over} />
      ${progress.isLoaded && !isEmpty && html`<${ProgressCharts} ...${common} history=${history} over=${over} chosen=${chosen} choose=${setChosen} smoothing=${smoothing} isLog=${isLog} isTogether=${isTogether} />`}
    <//>
    <${UsageCharts} ...${common} usage=${usage} job=${job} />
    <${Spoken}>${spoken}<//>
  <//>`;
}

/** Says that a history is too large to be shown as a whole, and reads more of it. */
function Incomplete({ history, isReading, readMore }) {
  // Before anything was read, its size is not known.
  if (!history.slicesRead || history.slicesRead >= history.slices) return null;
  const button = html`<${Chakra.Button} size="xs" variant="outline" loading=${isReading} onClick=${readMore}>Read more of it<//>`;
  return html`<${Notice} actions=${button}>
    ${`This history is large (${bytesText(history.until)}): ${history.slicesRead} of ${history.slices.toLocaleString("en-US")} parts are read, each from all over it. What lies between, such as single peaks, may be missing.`}
  <//>`;
}

/** What a reader of the curves should know. */
function Remarks({ history, over }) {
  const remarks = [];
  if (over === "t" && history.times !== "lines" && history.withinS !== null) {
    remarks.push(`The lines do not say when they were written. The samples of the job's use do, to within ${history.withinS} s.`);
  }
  if (history.badLines) remarks.push(`${countText(history.badLines, "line")} of PROGRESS_FILE that ${history.badLines === 1 ? "is no JSON object is" : "are no JSON objects are"} left out.`);
  return remarks.length ? html`<${Chakra.Text} fontSize="xs" color="fg.muted" mb=${2}>${remarks.join(" ")}<//>` : null;
}

function useStyles() {
  React.useEffect(() => {
    if (document.querySelector(`link[href="${STYLES}"]`)) return;
    const link = document.createElement("link");
    [link.rel, link.href] = ["stylesheet", STYLES];
    document.head.append(link);
  }, []);
}
