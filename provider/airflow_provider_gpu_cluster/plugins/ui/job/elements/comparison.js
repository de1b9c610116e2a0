// A table that compares elements: parameters, final metrics, how long each took. Every column sorts.

import { Chakra, html, React } from "../../airflow.js";
import { StateChip } from "../../parts/chip.js";
import { wordsText } from "../../parts/number_text.js";
import { durationText } from "../../parts/time_text.js";
import { shortened, visible } from "../outputs/names.js";
import { valueText } from "./parallel.js";

const PAGE = 25;

/**
 * @param {{rows: object[], columns: object[], order: {id: string, isDown: boolean}, onOrder: (order: object) => void, ends: {id: string, best: Set<number>, worst: Set<number>} | null,
 *   marked: number | null, onMark: (index: number | null) => void, linkOf: (index: number) => string, onOpen: (index: number) => void}} props
 */
export function Comparison({ rows, columns, order, onOrder, ends, marked, onMark, linkOf, onOpen }) {
  const [page, setPage] = React.useState(0);
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  const at = Math.min(page, pages - 1);
  const shown = rows.slice(at * PAGE, (at + 1) * PAGE);
  React.useEffect(() => setPage(0), [order]);
  const sort = (id) => onOrder({ id, isDown: order.id === id ? !order.isDown : false });
  return html`
    <${Chakra.Table.ScrollArea} role="region" aria-label="Comparison of elements" tabIndex=${0} maxW="100%">
      <${Chakra.Table.Root} size="sm" striped aria-label="Comparison of elements">
        <${Chakra.Table.Header}><${Chakra.Table.Row}>
          <${Head} id="index" name="Element" order=${order} onSort=${sort} />
          <${Head} id="state" name="State" order=${order} onSort=${sort} />
          ${columns.map((column) => html`<${Head} key=${column.id} id=${column.id} name=${column.name} isNumber=${column.isNumber} order=${order} onSort=${sort} />`)}
        <//><//>
        <${Chakra.Table.Body}>
          ${shown.map((row) => html`<${Row} key=${row.index} row=${row} columns=${columns} ends=${ends} isMarked=${row.index === marked} onMark=${onMark} href=${linkOf(row.index)} onOpen=${onOpen} />`)}
        <//>
      <//>
    <//>
    ${pages > 1 && html`<${Chakra.Flex} as="nav" aria-label="Pages of the comparison" align="center" gap=${2} mt=${2}>
      <${Chakra.Button} size="xs" variant="outline" disabled=${at === 0} onClick=${() => setPage(at - 1)}>Previous<//>
      <${Chakra.Text} fontSize="sm">Page ${at + 1} of ${pages}<//>
      <${Chakra.Button} size="xs" variant="outline" disabled=${at === pages - 1} onClick=${() => setPage(at + 1)}>Next<//>
    <//>`}
  `;
}

// Only the row that is pointed at is drawn anew.
const Row = React.memo(function Row({ row, columns, ends, isMarked, onMark, href, onOpen }) {
  const open = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    onOpen(row.index);
  };
  return html`<${Chakra.Table.Row} data-element=${row.index} bg=${isMarked ? "bg.emphasized" : undefined} onMouseEnter=${() => onMark(row.index)} onMouseLeave=${() => onMark(null)}>
    <${Chakra.Table.Cell} verticalAlign="top"><${Chakra.Link} color="fg.info" href=${href} onClick=${open} aria-label=${`Element ${row.index}`}>${row.index}<//><//>
    <${Chakra.Table.Cell} verticalAlign="top">
      <${StateChip} state=${row.state} />
      ${row.reason && html`<${Chakra.Text} color="fg.muted" fontSize="xs" maxW="20rem" whiteSpace="normal" overflowWrap="anywhere">${wordsText(row.kind ?? row.reason)}<//>`}
    <//>
    ${columns.map(
      (column) => html`<${Chakra.Table.Cell} key=${column.id} data-column=${column.id} fontVariantNumeric="tabular-nums" maxW="24rem" whiteSpace="normal" overflowWrap="anywhere"
          textAlign=${column.isNumber ? "end" : "start"} verticalAlign="top"><${Value} column=${column} row=${row} ends=${ends?.id === column.id ? ends : null} /><//>`,
    )}
  <//>`;
});

function Head({ id, name, isNumber = false, order, onSort }) {
  const isSorted = order.id === id;
  return html`<${Chakra.Table.ColumnHeader} scope="col" aria-sort=${isSorted ? (order.isDown ? "descending" : "ascending") : undefined} textAlign=${isNumber ? "end" : "start"}>
    <${Chakra.Button} variant="plain" h="auto" minW=${0} p=${0} fontSize="sm" fontWeight="inherit" color="inherit" onClick=${() => onSort(id)} title=${`Sort by ${visible(name)}`}>
      ${shortened(visible(name), 30)}<${Chakra.Text} as="span" aria-hidden="true" color="fg.muted">${isSorted ? (order.isDown ? "↓" : "↑") : "↕"}<//>
    <//>
  <//>`;
}

function Value({ column, row, ends }) {
  const value = column.of(row);
  if (value === undefined || value === null) return html`<${Chakra.Text} as="span" color="fg.muted" aria-label="none">–<//>`;
  const text = column.id === "duration" ? durationText(value) : shortened(valueText(value), 120);
  const end = ends?.best.has(row.index) ? "best" : ends?.worst.has(row.index) ? "worst" : "";
  if (!end) return text;
  return html`<${Chakra.Text} as="span" fontWeight="bold">${text}<//> <${Chakra.Badge} size="xs" colorPalette=${end === "best" ? "green" : "orange"} data-end=${end}>${end}<//>`;
}
