// The elements of an array: how each stands, and a comparison of what they were given with what came of it.

import { Chakra, html, React, Router } from "../../airflow.js";
import { lookOf } from "../../parts/chip.js";
import { Busy, Empty, Notice, Spoken } from "../../parts/notice.js";
import { countText } from "../../parts/number_text.js";
import { Section } from "../../parts/section.js";
import { shortened, visible } from "../outputs/names.js";
import { ColumnChoice } from "./column_choice.js";
import { bestAndWorst, columnsOf, sorted, usualColumns, usualGoal } from "./columns.js";
import { Comparison } from "./comparison.js";
import { countsOf, failedFirst } from "./order.js";
import { ParallelPlot } from "./parallel.js";
import { Squares } from "./squares.js";
import { useElements } from "./use_elements.js";

const FAILED_FIRST = { id: "state", isDown: false };
const PLAIN = [
  { id: "index", of: (row) => row.index, isNumber: true },
];

/** @param {{address: object, job: object, live: object}} props */
export function ElementsPanel({ address, job }) {
  const { told, states, error, isBusy } = useElements(address, job);
  const [only, setOnly] = React.useState(null);
  const { linkOf, open } = useElementLinks();
  const counts = countsOf(states);
  const shown = React.useMemo(() => failedFirst(only === null ? states : states.filter(({ state }) => state === only)), [states, only]);
  // What an element is now counts, not what it was when it was told of.
  const rows = React.useMemo(() => shown.filter(({ index }) => told.has(index)).map(({ index, state, reason }) => ({ ...told.get(index), state, reason })), [shown, told]);
  return html`<${Chakra.Box} pt=${3}>
    <${Section} title=${countText(states.length, "element")}>
      ${error && html`<${Notice} status="warning">${error}<//>`}
      <${Chakra.Flex} role="group" aria-label="Show only elements in one state" gap=${2} mb=${2} wrap="wrap">
        <${Filter} label=${`All ${states.length}`} isOn=${only === null} onTurn=${() => setOnly(null)} />
        ${counts.map(([state, count]) => html`<${Filter} key=${state} label=${`${lookOf(state).word} ${count}`} isOn=${only === state} onTurn=${() => setOnly(only === state ? null : state)} />`)}
      <//>
      <${Spoken}>${only === null ? "" : `${countText(shown.length, "element")} ${lookOf(only).word.toLowerCase()}`}<//>
      <${Squares} states=${shown} linkOf=${linkOf} onOpen=${open} />
    <//>
    ${isBusy && html`<${Busy} label="The elements are looked at." />`}
    ${told.size > 0 && html`<${Compared} rows=${rows} all=${told} linkOf=${linkOf} onOpen=${open} />`}
  <//>`;
}

const Filter = ({ label, isOn, onTurn }) =>
  html`<${Chakra.Button} size="xs" variant=${isOn ? "solid" : "outline"} aria-pressed=${isOn} onClick=${onTurn}>${label}<//>`;

function Compared({ rows, all, linkOf, onOpen }) {
  const columns = React.useMemo(() => columnsOf([...all.values()]), [all]);
  const [chosen, setChosen] = React.useState(null);
  const [order, setOrder] = React.useState(FAILED_FIRST);
  const [goal, setGoal] = React.useState(null);
  const [marked, setMarked] = React.useState(null);
  const usual = React.useMemo(() => usualGoal(columns), [columns]);
  const { id: goalId = "", goal: direction = "max" } = goal ?? usual ?? {};
  const ids = React.useMemo(() => chosen ?? usualColumns(columns), [chosen, columns]);
  const shown = React.useMemo(() => columns.filter(({ id }) => ids.includes(id)), [columns, ids]);
  // Who has no value on an axis has no line.
  const axes = React.useMemo(() => shown.filter(({ kind }) => kind !== "env"), [shown]);
  const goalColumn = columns.find(({ id }) => id === goalId) ?? null;
  const ends = React.useMemo(() => goalColumn && { id: goalId, ...bestAndWorst(rows, goalColumn, direction) }, [rows, goalColumn, direction]);
  const inOrder = React.useMemo(() => {
    const column = [...PLAIN, ...columns].find(({ id }) => id === order.id);
    if (column) return sorted(rows, column, order.isDown);
    return order.isDown ? [...rows].reverse() : rows;
  }, [rows, columns, order]);
  const hidden = [...new Set([...all.values()].flatMap(({ env_names: names }) => names))];
  const numbers = columns.filter(({ isNumber, kind }) => isNumber && kind !== "parameter");
  const actions = html`<${Chakra.Flex} gap=${2} wrap="wrap" align="center">
    ${numbers.length > 0 && html`
      <${Choice} label="Compare by" value=${goalId} onChoose=${(id) => setGoal({ id, goal: usualGoal(columns.filter((one) => one.id === id))?.goal ?? direction })}
        options=${[["", "nothing"], ...numbers.map(({ id, name, kind }) => [id, `${shortened(visible(name), 30)}${kind === "progress" ? " (progress)" : ""}`])]} />
      <${Choice} label="Best value" value=${direction} onChoose=${(best) => setGoal({ id: goalId, goal: best })} options=${[["min", "lowest"], ["max", "highest"]]} />`}
    <${ColumnChoice} columns=${columns} chosen=${ids} onChoose=${setChosen} />
  <//>`;
  return html`<${Section} title="Comparison" actions=${actions}>
    <${ParallelPlot} rows=${rows} columns=${axes} goalColumn=${goalColumn} goal=${direction} marked=${marked} onMark=${setMarked} onOpen=${onOpen} />
    <${Comparison} rows=${inOrder} columns=${shown} order=${order} onOrder=${setOrder} ends=${ends} marked=${marked} onMark=${setMarked} linkOf=${linkOf} onOpen=${onOpen} />
    ${hidden.length > 0 && html`<${Empty}>Values of environment variables (${shortened(hidden.map(visible).join(", "), 200)}) are hidden. To compare by one, give it as an argument, or write it into metrics.json.<//>`}
  <//>`;
}

const Choice = ({ label, value, options, onChoose }) => html`<${Chakra.Flex} as="label" align="center" fontSize="sm" gap=${1}>
  ${label}
  <${Chakra.NativeSelect.Root} size="sm" w="auto">
    <${Chakra.NativeSelect.Field} value=${value} onChange=${(event) => onChoose(event.target.value)}>
      ${options.map(([id, text]) => html`<option key=${id} value=${id}>${text}</option>`)}
    <//>
    <${Chakra.NativeSelect.Indicator} />
  <//>
<//>`;

/** Where an element is shown: on the page of its array, with its index in the query. */
function useElementLinks() {
  const navigate = Router.useNavigate();
  const location = Router.useLocation();
  const linkOf = React.useCallback((index) => `${globalThis.location.pathname}${searchOf(location.search, index)}`, [location.search]);
  const open = React.useCallback((index) => navigate({ pathname: location.pathname, search: searchOf(location.search, index) }), [navigate, location]);
  return { linkOf, open };
}

function searchOf(search, index) {
  const query = new URLSearchParams(search);
  query.delete("show");
  query.set("element", index);
  return `?${query}`;
}
