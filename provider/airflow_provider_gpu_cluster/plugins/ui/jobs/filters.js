// Chooses which jobs the list shows.

import { Chakra, html, React } from "../airflow.js";
import { get } from "../api.js";
import { lookOf } from "../parts/chip.js";
import { wordsText } from "../parts/number_text.js";
import { useZone } from "../parts/time.js";
import { isFiltered, unfiltered } from "./query.js";
import { momentOf, shownAt } from "./wall_clock.js";

const TYPING_MS = 300;
const TIMES = { "": "Any time", "1h": "Last hour", "24h": "Last 24 hours", "7d": "Last 7 days", "30d": "Last 30 days", between: "Between ..." };
/** Filters of the whole list, and those that say something within one DAG run. */
const ALL = [
  { name: "state", label: "State", textOf: (state) => lookOf(state).word },
  { name: "reason", label: "Reason", textOf: wordsText },
  { name: "conn_id", label: "Cluster" },
  { name: "dag_id", label: "DAG", isOfRun: false },
  { name: "task_id", label: "Task" },
  { name: "user", label: "User", isOfRun: false },
];

/** @param {{query: import("./query.js").JobsQuery, change: (change: any) => void, ofRun: boolean}} props */
export function Filters({ query, change, ofRun }) {
  const choices = useChoices();
  const filters = ALL.filter((filter) => !ofRun || filter.isOfRun !== false);
  return html`<${Chakra.VStack} align="stretch" gap=${2} mb=${2} role="search" aria-label="Jobs">
    <${Search} q=${query.q} onSearch=${(q) => change({ q })} />
    <${Chakra.Flex} gap=${2} wrap="wrap">
      ${filters.map(
        ({ name, label, textOf = String }) => html`<${OneOf} key=${name} label=${label} textOf=${textOf} chosen=${query.filters[name]}
            values=${choices[name] ?? []} onChoose=${(values) => change({ filters: { ...query.filters, [name]: values } })} />`,
      )}
      ${!ofRun && html`<${Times} query=${query} change=${change} />`}
      <${Latest} isOn=${query.isLatest} onChange=${(isLatest) => change({ isLatest })} />
      ${isFiltered(query) && html`<${Chakra.Button} size="sm" variant="ghost" onClick=${() => change(unfiltered(query))}>Clear filters<//>`}
    <//>
  <//>`;
}

/** By what values jobs can be filtered now. A list without them is still a list. */
function useChoices() {
  const [choices, setChoices] = React.useState({});
  React.useEffect(() => {
    const giveUp = new AbortController();
    get("jobs/choices", { signal: giveUp.signal }).then(setChoices, () => undefined);
    return () => giveUp.abort();
  }, []);
  return choices;
}

/** Searches once nobody has typed for a moment. */
function Search({ q, onSearch }) {
  const [text, setText] = React.useState(q);
  const asked = React.useRef(q);
  React.useEffect(() => {
    // Something else has changed it, such as the button "Clear filters".
    if (q !== asked.current) setText((asked.current = q));
  }, [q]);
  React.useEffect(() => {
    if (text === asked.current) return undefined;
    const timer = setTimeout(() => onSearch((asked.current = text)), TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return html`<${Chakra.Input} type="search" aria-label="Search jobs" placeholder="Search jobs by id, DAG, run, task, user, host or message"
      maxLength=${500} value=${text} onChange=${(event) => setText(event.target.value)} />`;
}

/** Any number of values of one kind. */
function OneOf({ label, values, chosen, textOf, onChoose }) {
  const collection = React.useMemo(() => {
    const all = [...new Set([...chosen, ...values])].sort();
    return Chakra.createListCollection({ items: all.map((value) => ({ value, label: textOf(value) })) });
  }, [values, chosen.join("\0")]);
  const shown = chosen.length > 1 ? `${label}: ${chosen.length}` : chosen.length ? `${label}: ${textOf(chosen[0])}` : label;
  return html`<${Chakra.Select.Root} multiple size="sm" width="auto" minW="7rem" maxW="18rem" collection=${collection} value=${chosen}
      onValueChange=${({ value }) => onChoose(value)} lazyMount unmountOnExit positioning=${{ sameWidth: false }}>
    <${Chakra.Select.HiddenSelect} aria-hidden="true" />
    <${Chakra.VisuallyHidden}><${Chakra.Select.Label}>${shown}<//><//>
    <${Chakra.Select.Control}>
      <${Chakra.Select.Trigger}><${Chakra.Text} truncate color=${chosen.length ? "fg" : "fg.muted"} pe=${5}><bdi>${shown}</bdi><//><//>
      <${Chakra.Select.IndicatorGroup}><${Chakra.Select.Indicator} /><//>
    <//>
    <${Chakra.Portal}>
      <${Chakra.Select.Positioner}>
        <${Chakra.Select.Content} maxW="90vw" minW="12rem">
          ${collection.items.length === 0 && html`<${Chakra.Text} color="fg.muted" fontSize="sm" p=${2}>There is nothing to choose yet.<//>`}
          ${collection.items.map((item) => html`<${Chakra.Select.Item} key=${item.value} item=${item}><bdi>${item.label}</bdi><${Chakra.Select.ItemIndicator} /><//>`)}
        <//>
      <//>
    <//>
  <//>`;
}

/** When jobs were submitted. */
function Times({ query, change }) {
  const zone = useZone();
  const [isBetween, setBetween] = React.useState(Boolean(query.since || query.until));
  const choice = query.range || (isBetween || query.since || query.until ? "between" : "");
  function choose(name) {
    setBetween(name === "between");
    change(name === "between" ? { range: "" } : { range: name, since: "", until: "" });
  }
  const moment = (name, label) => html`<${Chakra.Input} type="datetime-local" size="sm" width="auto" aria-label=${`${label}, ${zone}`} title=${zone}
      value=${shownAt(query[name], zone)} onChange=${(event) => change({ [name]: momentOf(event.target.value, zone) })} />`;
  return html`
    <${Chakra.NativeSelect.Root} size="sm" width="auto">
      <${Chakra.NativeSelect.Field} aria-label="Submitted" value=${choice} onChange=${(event) => choose(event.target.value)}>
        ${Object.entries(TIMES).map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
      <//>
      <${Chakra.NativeSelect.Indicator} />
    <//>
    ${choice === "between" && html`${moment("since", "Submitted from")}${moment("until", "Submitted before")}`}`;
}

function Latest({ isOn, onChange }) {
  return html`<${Chakra.Checkbox.Root} size="sm" checked=${isOn} onCheckedChange=${({ checked }) => onChange(checked === true)}>
    <${Chakra.Checkbox.HiddenInput} /><${Chakra.Checkbox.Control} />
    <${Chakra.Checkbox.Label}>Hide earlier jobs of cleared tasks<//>
  <//>`;
}
