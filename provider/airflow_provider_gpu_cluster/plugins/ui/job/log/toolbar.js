// What can be done with a log: which part of it, how it is shown, and where in it the reader is.

import { Chakra, html, React } from "../../airflow.js";
import { bytesText } from "../../parts/number_text.js";
import { connOf } from "./attempt_place.js";

const STREAMS = { output: "Output", errors: "Only stderr", environment: "Environment" };
const MOST_ATTEMPTS = 200;
const SLIDE_MS = 150;

/** @param {{job: object, held: import("./windows.js").Held | null, attempt: number | null, stream: string, follows: boolean, wraps: boolean, place: number | null, downloadHref: string}} props
 *   and a function for each thing that can be done */
export function Toolbar({ job, held, attempt, stream, follows, wraps, place, downloadHref, onAttempt, onStream, onWrap, onFollow, onStart, onEnd, onPlace, onCopy, onLink }) {
  const numbers = (job.attempts ?? []).map((one) => one.attempt).filter(Number.isInteger).slice(-MOST_ATTEMPTS);
  const whereWas = (number) => {
    const conn = connOf(job, number);
    return conn === job.conn_id ? "" : `, on ${conn}`;
  };
  if (attempt !== null && !numbers.includes(attempt)) numbers.push(attempt);
  const isEmpty = !held?.blocks.length;
  return html`<${Chakra.Box} mb=${2}>
    <${Chakra.Flex} align="center" gap=${2} mb=${1} wrap="wrap">
      ${numbers.length > 1 && html`<${Choice} label="Attempt" value=${attempt ?? ""} onChoose=${(value) => onAttempt(value ? Number(value) : null)}
        options=${[["", "Newest log"], ...numbers.map((number) => [String(number), `Attempt ${number}${whereWas(number)}`])]} />`}
      <${Choice} label="What was printed" value=${stream} onChoose=${onStream} options=${Object.entries(STREAMS)} />
      <${Act} onClick=${onStart} title="Home">Start<//>
      <${Act} onClick=${onEnd} title="End">End<//>
      <${Chakra.Button} size="sm" variant=${follows ? "solid" : "outline"} colorPalette=${follows ? "brand" : "gray"} aria-pressed=${follows} title="f" onClick=${onFollow}>Follow<//>
      <${Chakra.Button} size="sm" variant=${wraps ? "solid" : "outline"} colorPalette=${wraps ? "brand" : "gray"} aria-pressed=${wraps} title="w" onClick=${onWrap}>Wrap<//>
      <${Act} onClick=${onCopy} disabled=${isEmpty} title="Copy the lines that are loaded here">Copy<//>
      <${Act} onClick=${onLink} disabled=${isEmpty} title="Copy a link to the line that is chosen, or the first that is seen">Link<//>
      <${Chakra.Button} asChild size="sm" variant="outline"><a href=${downloadHref} download>Download<//><//>
      <${Chakra.Text} color="fg.muted" fontSize="sm" whiteSpace="nowrap">${held ? bytesText(held.stop - held.start) : ""}<//>
    <//>
    ${held && held.stop > held.start && html`<${Slider} held=${held} place=${follows ? held.stop : place} onPlace=${onPlace} />`}
  <//>`;
}

const Act = ({ children, ...others }) => html`<${Chakra.Button} size="sm" variant="outline" ...${others}>${children}<//>`;

const Choice = ({ label, value, options, onChoose }) => html`<${Chakra.NativeSelect.Root} size="sm" width="auto">
  <${Chakra.NativeSelect.Field} aria-label=${label} value=${value} onChange=${(event) => onChoose(event.target.value)}>
    ${options.map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
  <//>
  <${Chakra.NativeSelect.Indicator} />
<//>`;

/** Where in the whole log the reader is; a page holds only a part of it. */
function Slider({ held, place, onPlace }) {
  const [sliding, setSliding] = React.useState(null);
  React.useEffect(() => {
    if (sliding === null) return undefined;
    const timer = setTimeout(() => {
      onPlace(sliding);
      setSliding(null);
    }, SLIDE_MS);
    return () => clearTimeout(timer);
  }, [sliding]);
  const value = sliding ?? Math.min(Math.max(place ?? held.start, held.start), held.stop);
  const percent = Math.round((100 * (value - held.start)) / (held.stop - held.start));
  return html`<${Chakra.chakra.input} type="range" aria-label="Place in the log" aria-valuetext=${`${percent} % of ${bytesText(held.stop - held.start)}`}
    min=${held.start} max=${held.stop} step=${Math.max(1, Math.floor((held.stop - held.start) / 1000))} value=${value} width="100%" display="block"
    onChange=${(event) => setSliding(Number(event.target.value))} />`;
}
