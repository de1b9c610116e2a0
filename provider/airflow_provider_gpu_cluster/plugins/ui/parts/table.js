// A table with the look of Airflow's own.

import { Chakra, html } from "../airflow.js";
import { Empty } from "./notice.js";

/**
 * @param {{label: string, columns: {name: string, of: (row: any) => any, isNumber?: boolean, wraps?: boolean}[],
 *   rows: any[], keyOf?: (row: any, index: number) => string | number, empty?: string}} props
 */
export function DataTable({ label, columns, rows, keyOf = (_, index) => index, empty = "There is nothing here." }) {
  if (!rows.length) return html`<${Empty}>${empty}<//>`;
  return html`<${Chakra.Table.ScrollArea} role="region" aria-label=${label} tabIndex=${0} maxW="100%">
    <${Chakra.Table.Root} size="sm" striped aria-label=${label}>
      <${Chakra.Table.Header}>
        <${Chakra.Table.Row}>
          ${columns.map((column) => html`<${Chakra.Table.ColumnHeader} key=${column.name} scope="col" textAlign=${column.isNumber ? "end" : "start"}>${column.name}<//>`)}
        <//>
      <//>
      <${Chakra.Table.Body}>
        ${rows.map(
          (row, index) => html`<${Chakra.Table.Row} key=${keyOf(row, index)}>
            ${columns.map(
              (column) => html`<${Chakra.Table.Cell} key=${column.name} textAlign=${column.isNumber ? "end" : "start"}
                  minW=${column.wraps ? "14rem" : undefined} whiteSpace=${column.wraps ? "normal" : undefined} overflowWrap=${column.wraps ? "anywhere" : undefined}
                  fontVariantNumeric=${column.isNumber ? "tabular-nums" : undefined} verticalAlign="top">${column.of(row)}<//>`,
            )}
          <//>`,
        )}
      <//>
    <//>
  <//>`;
}
