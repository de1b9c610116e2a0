// One chart: lines over a common axis, their values under the cursor, and zoom. Everything works with the keyboard.

import { Chakra, html, React } from "../../airflow.js";
import { timeText } from "../../parts/time_text.js";
import uPlot from "../../third_party/uplot-1.6.32/uplot.js";
import { chartOptions } from "./chart_options.js";
import { valueOver } from "./cursor_bus.js";
import { Legend } from "./legend.js";
import { valuesAt } from "./plot.js";
import { nearestIndex } from "./segments.js";
import { useTheme } from "./theme.js";
import { xText } from "./units.js";

export const CHART_PX = 200;
const KEYS = "Left and right arrow keys move the cursor, with Shift by ten points. Plus and minus zoom, and 0 shows everything.";

/**
 * @param {{title: string, plot: import("./plot.js").Plot, over: "x" | "t" | "at", xName: string, unit: object,
 *   isLog?: boolean, zone: string, marks?: {x: number, text: string}[], bus: object, places: object,
 *   zoom: {over: string, min: number, max: number} | null, onZoom: (zoom: object | null) => void, speak: (text: string) => void}} props
 */
export function Chart({ title, plot, over, xName, unit, isLog = false, zone, marks = [], bus, places, zoom, onZoom, speak }) {
  const theme = useTheme();
  const place = React.useRef(null);
  const chart = React.useRef(null);
  const [index, setIndex] = React.useState(null);
  const me = React.useRef({}).current;
  // What the chart's own callbacks look up when they are called.
  const now = React.useRef({});
  now.current = { plot, marks, places, over, range: rangeOver(zoom, over, places), onZoom, tell: (at) => bus.tell(at, me), setIndex };

  const structure = JSON.stringify([plot.lines, over, unit.title, isLog, zone, theme]);
  React.useEffect(() => {
    const options = chartOptions({
      plot, over, unit, isLog, zone, theme,
      width: Math.max(100, place.current.clientWidth),
      height: CHART_PX,
      rangeOfX: () => now.current.range,
      marks: () => now.current.marks,
      onCursor: (u) => {
        now.current.setIndex(u.cursor.idx ?? null);
        if (u.cursor.event) now.current.tell(u.cursor.idx === null ? null : { over: now.current.over, value: u.data[0][u.cursor.idx] });
      },
      onSelect: (min, max) => now.current.onZoom({ over: now.current.over, min, max }),
    });
    const made = new uPlot(options, now.current.plot.data, place.current);
    chart.current = made;
    const observer = new ResizeObserver(() => place.current && made.setSize({ width: Math.max(100, place.current.clientWidth), height: CHART_PX }));
    observer.observe(place.current);
    return () => {
      observer.disconnect();
      chart.current = null;
      made.destroy();
    };
  }, [structure]);

  const isFirst = React.useRef(true);
  React.useEffect(() => {
    if (isFirst.current) {
      isFirst.current = false;
      return;
    }
    const u = chart.current;
    const at = u?.cursor.idx;
    u?.setData(plot.data);
    // The same place of the job stays under the cursor.
    if (index !== null && at !== null && at !== undefined && at < plot.data[0].length) u.setCursor({ left: u.valToPos(plot.data[0][at], "x"), top: 0 });
  }, [plot, zoom, marks]);

  React.useEffect(
    () =>
      bus.listen((told) => {
        const u = chart.current;
        const value = told && valueOver(told, now.current.over, now.current.places);
        if (!u) return;
        if (value === null || value === undefined || !u.data[0].length) u.setCursor({ left: -10, top: -10 });
        else u.setCursor({ left: u.valToPos(u.data[0][nearestIndex(u.data[0], value)], "x"), top: 0 });
      }, me),
    [bus],
  );

  const xOf = (value) => (over === "t" ? timeText(1000 * value, zone) : xText(value));
  const onKeyDown = (event) => {
    const u = chart.current;
    const xs = plot.data[0];
    if (!u || !xs?.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = event.shiftKey ? 10 : 1;
    const moves = { ArrowLeft: (at) => at - by, ArrowRight: (at) => at + by, Home: () => 0, End: () => xs.length - 1 };
    if (event.key in moves) {
      const at = Math.min(xs.length - 1, Math.max(0, moves[event.key](index ?? (event.key === "ArrowLeft" ? xs.length : -1))));
      u.setCursor({ left: u.valToPos(xs[at], "x"), top: 0 });
      now.current.tell({ over, value: xs[at] });
      speak(`${xName} ${xOf(xs[at])}: ${spokenValues(plot, at, unit)}`);
    } else if ("+=-".includes(event.key)) {
      const [min, max] = [u.scales.x.min, u.scales.x.max];
      const middle = index === null ? (min + max) / 2 : xs[index];
      const half = ((max - min) / 2) * (event.key === "-" ? 2 : 0.5);
      const [first, last] = [Math.max(xs[0], middle - half), Math.min(xs.at(-1), middle + half)];
      onZoom(first <= xs[0] && last >= xs.at(-1) ? null : { over, min: first, max: last });
    } else if (event.key === "0") onZoom(null);
    else return;
    event.preventDefault();
  };
  const leave = () => {
    chart.current?.setCursor({ left: -10, top: -10 });
    bus.tell(null, me);
  };

  const helpId = React.useId();
  return html`<${Chakra.Box} as="figure" m=${0} minW=${0} borderWidth="1px" borderRadius="md" p=${2}>
    <${Chakra.Flex} as="figcaption" justify="space-between" gap=${2} fontSize="sm">
      <${Chakra.Text} fontWeight="bold" overflowWrap="anywhere" dir="auto">${title}<//>
      <${Chakra.Text} color="fg.muted" whiteSpace="nowrap" fontVariantNumeric="tabular-nums">${index === null || plot.data[0][index] === undefined ? "" : `${over === "t" ? "" : `${xName} `}${xOf(plot.data[0][index])}`}<//>
    <//>
    <${Chakra.Box} ref=${place} role="application" aria-roledescription="chart" aria-label=${`${title} over ${xName}: ${spokenValues(plot, plot.data[0].length - 1, unit) || "no values"}`} aria-describedby=${helpId}
      tabIndex=${0} onKeyDown=${onKeyDown} onBlur=${leave} onMouseLeave=${() => bus.tell(null, me)} onDoubleClick=${() => onZoom(null)} minW=${0} overflow="hidden" minH=${`${CHART_PX}px`}
      _focusVisible=${{ outline: "2px solid", outlineColor: "border.emphasized", outlineOffset: "2px" }} />
    <${Chakra.VisuallyHidden} id=${helpId}>${KEYS}<//>
    <${Legend} plot=${plot} values=${valuesAt(plot, index ?? plot.data[0].length - 1)} unit=${unit} isDark=${theme.isDark} />
  <//>`;
}

/** The part of an axis that is shown; null for all of it. */
function rangeOver(zoom, over, places) {
  if (!zoom) return null;
  const [min, max] = [zoom.min, zoom.max].map((value) => valueOver({ over: zoom.over, value }, over, places));
  return min === null || max === null || min >= max ? null : [min, max];
}

function spokenValues(plot, index, unit) {
  return valuesAt(plot, index)
    .map((value, line) => [plot.lines[line], value])
    .filter(([line, value]) => !line.isRaw && value !== null && value !== undefined)
    .slice(0, 8)
    .map(([{ label }, value]) => `${label} ${unit.text(value)}`)
    .join(", ");
}
