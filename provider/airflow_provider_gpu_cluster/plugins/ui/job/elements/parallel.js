// A plot in which each element is a line across parallel axes. The table beside it has the same values.

import { Chakra, html, React } from "../../airflow.js";
import { numberText } from "../../parts/number_text.js";
import { shortened, visible } from "../outputs/names.js";
import { axisOf, lineOf } from "./axes.js";
import { numberOf } from "./columns.js";

const [HEIGHT, TOP, BOTTOM, SIDE, LEAST_APART] = [280, 34, 16, 70, 110];
const MOST_AXES = 12;
const MOST_LINES = 1000;
const MANY_LINES = 200;
const OPACITY = { "": 0.85, thin: 0.4, faint: 0.2, marked: 1 };

/**
 * @param {{rows: object[], columns: object[], goalColumn: object | null, goal: "min" | "max", marked: number | null,
 *   onMark: (index: number | null) => void, onOpen: (index: number) => void}} props
 */
export const ParallelPlot = React.memo(function ParallelPlot({ rows, columns, goalColumn, goal, marked, onMark, onOpen }) {
  const box = React.useRef(null);
  const [width, setWidth] = React.useState(700);
  React.useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.round(entry.contentRect.width)));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  const drawn = rows.slice(0, MOST_LINES);
  const axes = React.useMemo(
    () => columns.map((column) => ({ column, axis: axisOf(drawn, column) })).filter(({ axis }) => axis !== null).slice(0, MOST_AXES),
    [rows, columns],
  );
  const inner = Math.max(width, 2 * SIDE + (axes.length - 1) * LEAST_APART);
  const x = (index) => (axes.length < 2 ? inner / 2 : SIDE + (index * (inner - 2 * SIDE)) / (axes.length - 1));
  const y = (place) => HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM);
  const shade = React.useMemo(() => shadeOf(drawn, goalColumn, goal), [rows, goalColumn, goal]);
  const lines = React.useMemo(() => drawn.map((row) => ({ row, d: lineOf(row, axes.map(({ axis }) => axis), x, y), title: titleOf(row, axes) })), [rows, axes, inner]);
  const usual = lines.length > MANY_LINES ? "thin" : "";
  const names = axes.map(({ column }) => visible(column.name)).join(", ");
  return html`<${Chakra.Box} ref=${box} overflowX="auto" tabIndex=${0} role="region" aria-label="Plot with parallel axes" color="fg">
    ${axes.length < 2
      ? html`<${Chakra.Text} color="fg.muted" fontSize="sm" py=${2}>Choose two columns or more to see them as parallel axes.<//>`
      : html`<svg width=${inner} height=${HEIGHT} role="img" aria-label=${`${drawn.length} elements as lines across ${names}; the table has the same values.`}>
        <g fill="none">
          ${lines.map(({ row, d, title }) => html`<${Line} key=${row.index} index=${row.index} d=${d} title=${title} stroke=${shade(row)} look=${marked === null ? usual : row.index === marked ? "marked" : "faint"} onMark=${onMark} onOpen=${onOpen} />`)}
        </g>
        ${axes.map(
          ({ column, axis }, index) => html`<g key=${column.id} fill="currentColor" style=${{ fontSize: "11px", pointerEvents: "none" }}>
            <line x1=${x(index)} x2=${x(index)} y1=${y(0)} y2=${y(1)} stroke="currentColor" strokeOpacity="0.6" />
            <text x=${x(index)} y="12" textAnchor="middle" style=${{ fontWeight: 600 }}>${shortened(visible(column.name), 18)}</text>
            ${axis.isLog && html`<text x=${x(index)} y="24" textAnchor="middle" opacity="0.8">log</text>`}
            ${axis.ticks.map(
              ({ at, value }) => html`<text key=${String(value)} x=${x(index) + 5} y=${y(at) + 4} paintOrder="stroke" stroke="var(--chakra-colors-bg)" strokeWidth="3">${shortened(valueText(value), 14)}</text>`,
            )}
          </g>`,
        )}
      </svg>`}
    ${rows.length > drawn.length && html`<${Chakra.Text} color="fg.muted" fontSize="sm">The first ${MOST_LINES.toLocaleString("en-US")} elements.<//>`}
  <//>`;
});

// Of a thousand lines, only those that look otherwise are drawn anew.
const Line = React.memo(function Line({ index, d, title, stroke, look, onMark, onOpen }) {
  return html`<path d=${d} stroke=${stroke} strokeWidth=${look === "marked" ? 4 : 1.75} strokeOpacity=${OPACITY[look]} strokeLinejoin="round" style=${{ cursor: "pointer" }}
    onMouseEnter=${() => onMark(index)} onMouseLeave=${() => onMark(null)} onClick=${() => onOpen(index)}><title>${title}</title></path>`;
});

const titleOf = (row, axes) => `Element ${row.index}: ${axes.map(({ column }) => `${visible(column.name)} ${valueText(column.of(row))}`).join(", ")}`;

export const valueText = (value) => (typeof value === "number" ? numberText(value) : visible(value ?? "none"));

/** The colour of a line: from blue, for the best value of the metric that is compared by, to orange. */
function shadeOf(rows, column, goal) {
  const axis = column && axisOf(rows, column);
  return (row) => {
    const place = axis && numberOf(column.of(row)) !== null ? axis.place(row) : null;
    if (place === null) return "currentColor";
    const worse = goal === "min" ? place : 1 - place;
    return `color-mix(in oklab, hsl(28 90% 48%) ${Math.round(100 * worse)}%, hsl(215 85% 52%))`;
  };
}
