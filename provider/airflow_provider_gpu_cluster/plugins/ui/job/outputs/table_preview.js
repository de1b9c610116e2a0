// The beginning of a CSV or TSV file, as a table.

import { html, React } from "../../airflow.js";
import { Empty } from "../../parts/notice.js";
import { countText } from "../../parts/number_text.js";
import { DataTable } from "../../parts/table.js";
import { parseDelimited } from "./delimited.js";
import { visible } from "./names.js";

/** @param {{text: string, path: string, isCut: boolean}} props */
export function TablePreview({ text, path, isCut }) {
  const table = React.useMemo(() => parseDelimited(text, path.toLowerCase().endsWith(".tsv") ? { separator: "\t" } : {}), [text, path]);
  const [head = [], ...rows] = table.rows;
  const columns = head.map((name, index) => ({ name: visible(name) || `column ${index + 1}`, of: (row) => visible(row[index]) }));
  // Two columns may have the same name.
  const seen = new Map();
  for (const column of columns) {
    const times = (seen.get(column.name) ?? 0) + 1;
    seen.set(column.name, times);
    if (times > 1) column.name = `${column.name} (${times})`;
  }
  const hidden = table.columns - table.shownColumns;
  return html`
    <${DataTable} label="Rows of the table" columns=${columns} rows=${rows} empty="The table has no rows." />
    ${(table.hasMore || isCut) && html`<${Empty}>The first ${countText(rows.length, "row")}.<//>`}
    ${hidden > 0 && html`<${Empty}>The first ${table.shownColumns} of ${countText(table.columns, "column")}.<//>`}
  `;
}
