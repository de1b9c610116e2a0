// JSON as a tree that opens and closes.

import { Chakra, html, React } from "../../airflow.js";
import { Notice } from "../../parts/notice.js";
import { parseJson, treeRows } from "./json_rows.js";
import { visible } from "./names.js";
import { Text } from "./preview.js";

const LINES = /\.(jsonl|ndjson)$/i;

/** @param {{text: string, path: string, isCut: boolean}} props */
export function JsonTree({ text, path, isCut }) {
  const parsed = React.useMemo(() => parseJson(text, LINES.test(path)), [text, path]);
  const [open, setOpen] = React.useState(() => new Set([""]));
  const [current, setCurrent] = React.useState("");
  const box = React.useRef(null);
  if ("problem" in parsed) {
    return html`${!isCut && html`<${Notice} status="warning">This is not JSON: ${visible(parsed.problem)}<//>`}<${Text} text=${text} />`;
  }
  const rows = treeRows(parsed.value, open);
  const turn = (row, isOpen = !row.isOpen) => {
    const next = new Set(open);
    if (isOpen) next.add(row.path);
    else next.delete(row.path);
    if (row.children) setOpen(next);
  };
  const goTo = (index) => {
    const row = rows[Math.max(0, Math.min(rows.length - 1, index))];
    setCurrent(row.path);
    box.current?.querySelectorAll("[role=treeitem]")[rows.indexOf(row)]?.focus();
  };
  function press(event, row, index) {
    const acts = {
      ArrowDown: () => goTo(index + 1),
      ArrowUp: () => goTo(index - 1),
      Home: () => goTo(0),
      End: () => goTo(rows.length - 1),
      ArrowRight: () => (row.children && !row.isOpen ? turn(row, true) : goTo(index + 1)),
      ArrowLeft: () => (row.isOpen ? turn(row, false) : goTo(rows.findLastIndex((one, at) => at < index && one.depth < row.depth))),
      Enter: () => turn(row),
      " ": () => turn(row),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }
  return html`<${Chakra.Box} ref=${box} role="tree" aria-label="JSON" bg="bg.subtle" borderRadius="md" fontFamily="mono" fontSize="xs" maxH="60vh" overflow="auto" p=${3} dir="ltr">
    ${rows.map(
      (row, index) => html`<${Chakra.Box} key=${row.path} role="treeitem" aria-level=${row.depth + 1} aria-expanded=${row.children ? row.isOpen : undefined}
          aria-selected=${row.path === current} tabIndex=${row.path === current ? 0 : -1} onFocus=${() => setCurrent(row.path)}
          onClick=${() => turn(row)} onKeyDown=${(event) => press(event, row, index)} cursor=${row.children ? "pointer" : "default"}
          pl=${`${row.depth * 1.25}rem`} overflowWrap="anywhere">
        <${Chakra.Text} as="span" aria-hidden="true" color="fg.muted" display="inline-block" w="1.25rem">${row.children ? (row.isOpen ? "▾" : "▸") : ""}<//>
        ${row.name !== "" && html`<${Chakra.Text} as="span" fontWeight="bold">${visible(row.name)}: <//>`}
        <${Chakra.Text} as="span" color=${row.children ? "fg.muted" : "fg"}>${visible(row.text)}<//>
      <//>`,
    )}
  <//>`;
}
