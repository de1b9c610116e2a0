// The same as the charts show, as tables: for screen readers, and for everybody who wants numbers.

import { Chakra, html } from "../../airflow.js";
import { numberText } from "../../parts/number_text.js";
import { DataTable } from "../../parts/table.js";
import { rowsOf, valuesAt } from "./plot.js";

const MOST_ROWS = 100;

/** @param {{names: import("./history.js").Name[]}} props */
export function NumbersTable({ names }) {
  const value = (number) => (number === null ? "" : numberText(number));
  const columns = [
    { name: "Metric", of: ({ name }) => html`<${Chakra.Text} as="span" dir="auto" overflowWrap="anywhere">${name}<//>` },
    { name: "Last", of: ({ last }) => value(last), isNumber: true },
    { name: "Lowest", of: ({ least }) => value(least), isNumber: true },
    { name: "Highest", of: ({ most }) => value(most), isNumber: true },
    { name: "Values", of: ({ count }) => count.toLocaleString("en-US"), isNumber: true },
  ];
  return html`<${DataTable} label="Metrics in numbers" columns=${columns} rows=${names} keyOf=${({ name }) => name} />`;
}

/** @param {{title: string, plot: import("./plot.js").Plot, xName: string, xText: (x: number) => string, unitOfLine: (line: object) => object}} props */
export function ValuesTable({ title, plot, xName, xText, unitOfLine }) {
  const shown = plot.lines.map((line, index) => ({ line, index })).filter(({ line }) => !line.isRaw);
  const rows = rowsOf(plot.data[0].length, MOST_ROWS).map((place) => ({ place, values: valuesAt(plot, place) }));
  const columns = [
    { name: xName, of: ({ place }) => xText(plot.data[0][place]), isNumber: true },
    ...shown.map(({ line, index }) => ({
      name: line.attempt === null || plot.borders.length === 0 ? line.label : `${line.label}, attempt ${line.attempt}`,
      of: ({ values }) => (values[index] === null || values[index] === undefined ? "" : unitOfLine(line).text(values[index])),
      isNumber: true,
    })),
  ];
  return html`<${Chakra.Box} mt=${3}><${DataTable} label=${title} columns=${columns} rows=${rows} keyOf=${({ place }) => place} /><//>`;
}
