// The nodes of a scheduler: hundreds of them on one screen, one tab stop, and the details of the one that is chosen.

import { Chakra, html, React } from "../airflow.js";
import { countText } from "../parts/number_text.js";
import { Empty } from "../parts/notice.js";
import { GpuCells, Legend, Squares } from "./gpu_cells.js";
import { nodesIn, nodeText } from "./gpu_text.js";

const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };

const STYLE = {
  "& button": { borderWidth: "1px", borderColor: "border", borderRadius: "sm", cursor: "pointer", maxW: "100%", px: "1", pb: "1", textAlign: "start" },
  "& button[aria-expanded=true]": { borderColor: "brand.solid" },
  "& button:focus-visible": { outline: "2px solid", outlineColor: "brand.focusRing", outlineOffset: "1px" },
  "& span": { display: "block", fontSize: "xs", overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" },
};

/** @param {{cluster: any}} props */
export function Nodes({ cluster }) {
  const [partition, setPartition] = React.useState(() => cluster.partitions.find((one) => one.is_default)?.name ?? "");
  const [isFreeOnly, setFreeOnly] = React.useState(false);
  const [chosen, setChosen] = React.useState(null);
  const [current, setCurrent] = React.useState(0);
  const list = React.useRef(null);
  const nodes = nodesIn(cluster.nodes, partition, isFreeOnly);
  const stop = Math.min(current, nodes.length - 1);
  const shown = nodes.find((node) => node.name === chosen && chosen !== null);

  const choose = React.useCallback((name) => setChosen((before) => (before === name ? null : name)), []);

  function move(event) {
    const step = KEYS[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(nodes.length - 1, stop + step));
    setCurrent(next);
    list.current?.querySelectorAll("button")[next]?.focus();
  }

  /** The tab stop is where the focus was last, also after a click. */
  function follow(event) {
    const place = [...list.current.querySelectorAll("button")].indexOf(event.target);
    if (place >= 0) setCurrent(place);
  }

  return html`<${Chakra.Box}>
    <${Partitions} partitions=${cluster.partitions} chosen=${partition} onChoose=${setPartition} />
    <${Chakra.Flex} align="center" gap=${4} mb=${2} wrap="wrap">
      <${Chakra.Checkbox.Root} checked=${isFreeOnly} onCheckedChange=${(change) => setFreeOnly(change.checked === true)} size="sm">
        <${Chakra.Checkbox.HiddenInput} /><${Chakra.Checkbox.Control} /><${Chakra.Checkbox.Label}>Only nodes with a free GPU<//>
      <//>
      <${Legend} />
    <//>
    ${nodes.length === 0 && html`<${Empty}>No node ${isFreeOnly ? "has a free GPU" : "has GPUs"} here.<//>`}
    <${Chakra.Flex} ref=${list} role="group" aria-label=${`${countText(nodes.length, "node")}; the arrow keys go from one to the next`} gap=${1} css=${STYLE} onFocus=${follow} onKeyDown=${move} wrap="wrap">
      ${nodes.map(
        (node, place) => html`<${NodeButton} key=${node.name ?? place} node=${node} isChosen=${node === shown} tabIndex=${place === stop ? 0 : -1} onChoose=${choose} />`,
      )}
    <//>
    ${cluster.left_out > 0 && html`<${Empty}>${countText(cluster.left_out, "further GPU")} ${cluster.left_out === 1 ? "is" : "are"} not listed.<//>`}
    ${shown &&
    html`<${Chakra.Box} borderWidth=${1} borderRadius="md" mt=${2} p=${3} role="region" aria-label=${`Node ${shown.name}`}>
      <${Chakra.Text} fontSize="sm" fontWeight="bold" mb=${1} overflowWrap="anywhere">${nodeText(shown)}<//>
      <${Chakra.Text} color="fg.muted" fontSize="xs" mb=${2}>${[shown.state, shown.partitions.join(", ")].filter(Boolean).join("; in ")}<//>
      <${GpuCells} gpus=${shown.gpus} jobs=${cluster.jobs} />
    <//>`}
  <//>`;
}

/** Plain elements, styled by their list. What has not changed is not drawn again. */
const NodeButton = React.memo(
  function NodeButton({ node, isChosen, tabIndex, onChoose }) {
    const text = nodeText(node);
    return html`<button type="button" aria-label=${text} aria-expanded=${isChosen} title=${text} tabIndex=${tabIndex} onClick=${() => onChoose(node.name)}>
      <span>${node.name ?? "node"}${node.is_up ? "" : " (down)"}</span>
      <${Squares} gpus=${node.gpus} />
    </button>`;
  },
  (before, after) =>
    before.isChosen === after.isChosen && before.tabIndex === after.tabIndex && before.onChoose === after.onChoose && isSame(before.node, after.node),
);

const isSame = (one, other) =>
  one === other || (nodeText(one) === nodeText(other) && one.gpus.every((gpu, place) => gpu.state === other.gpus[place]?.state));

function Partitions({ partitions, chosen, onChoose }) {
  if (partitions.length === 0) return null;
  return html`<${Chakra.Flex} role="group" aria-label="Partition" gap=${1} mb=${3} wrap="wrap">
    ${[{ name: "" }, ...partitions].map(
      (one) => html`<${Chakra.Button} key=${one.name} size="xs" variant=${one.name === chosen ? "solid" : "outline"} aria-pressed=${one.name === chosen}
          onClick=${() => onChoose(one.name)}>
        ${one.name === "" ? "All partitions" : `${one.name}: ${one.free} of ${one.gpus} free`}${one.is_default ? " (default)" : ""}
      <//>`,
    )}
  <//>`;
}
