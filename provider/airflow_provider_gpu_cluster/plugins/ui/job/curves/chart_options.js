// How uPlot draws a chart.

import uPlot from "../../third_party/uplot-1.6.32/uplot.js";
import { faint, lookOf } from "./palette.js";
import { timeTicks } from "./time_ticks.js";
import { tickSteps, tickTexts, xText } from "./units.js";

const CHARACTER_PX = 7;
const LINE_PX = 1.75;
const [MINUTE_S, HOUR_S, DAY_S] = [60, 3600, 86400];
const TIME_STEPS_S = [1, 2, 5, 10, 15, 30, ...[1, 2, 5, 10, 15, 30].map((minutes) => minutes * MINUTE_S), ...[1, 2, 3, 6, 12].map((hours) => hours * HOUR_S), ...[1, 2, 7, 14, 28, 91, 365].map((days) => days * DAY_S)];

/**
 * @param {{plot: import("./plot.js").Plot, over: string, unit: object, isLog: boolean, zone: string, theme: object,
 *   width: number, height: number, rangeOfX: () => [number, number] | null, marks: () => {x: number, text: string}[],
 *   onCursor: (u: object) => void, onSelect: (min: number, max: number) => void}} wanted
 */
export function chartOptions({ plot, over, unit, isLog, zone, theme, width, height, rangeOfX, marks, onCursor, onSelect }) {
  const axis = { stroke: theme.text, font: theme.font, grid: { stroke: theme.line, width: 1 }, ticks: { stroke: theme.line, width: 1, size: 4 } };
  return {
    width,
    height,
    legend: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone),
    scales: {
      x: { time: over === "t", range: (_, min, max) => rangeOfX() ?? widened(min, max, over === "t" ? 30 : 1) },
      y: { distr: isLog ? 3 : 1, ...(isLog ? {} : { range: (_, min, max) => rangeOfY(min, max, unit.range) }) },
    },
    axes: [
      over === "t"
        ? { ...axis, space: 76, size: 42, incrs: TIME_STEPS_S, values: (_, ticks, __, ___, distance) => timeTicks(ticks, distance, zone) }
        : { ...axis, space: 60, size: 28, values: (_, ticks) => tickTexts(ticks, xText) },
      {
        ...axis,
        incrs: tickSteps(unit.base),
        values: (_, ticks) => tickTexts(ticks, unit.text),
        size: (_, texts) => Math.max(36, 14 + CHARACTER_PX * Math.max(0, ...(texts ?? []).map((text) => (text ?? "").length))),
      },
    ],
    series: [{}, ...plot.lines.map((line) => seriesOf(line, theme.isDark))],
    cursor: { y: false, points: { size: (_, index) => (plot.lines[index - 1]?.isRaw ? 0 : 7) }, drag: { x: true, y: false, setScale: false }, bind: { dblclick: () => null } },
    hooks: {
      setCursor: [onCursor],
      setSelect: [
        (u) => {
          const { left, width: selected } = u.select;
          if (selected < 4) return;
          onSelect(u.posToVal(left, "x"), u.posToVal(left + selected, "x"));
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
      drawAxes: [(u) => drawMarks(u, marks(), theme)],
    },
  };
}

function seriesOf({ label, look, isRaw, isLast }, isDark) {
  const { color, dash } = lookOf(look, isDark);
  const share = (isRaw ? 0.3 : 1) * (isLast ? 1 : 0.6);
  return {
    label,
    stroke: faint(color, share),
    width: isRaw ? 1 : LINE_PX,
    dash: isRaw ? [] : dash,
    points: { show: (u, index) => !isRaw && isSparse(u.data[index]), size: 5, fill: color },
  };
}

/** Whether a line has so few points that each is worth a dot; a single one would not be seen otherwise. */
function isSparse(column) {
  let count = 0;
  for (const value of column) if (value !== undefined && value !== null && (count += 1) > 30) return false;
  return true;
}

function widened(min, max, by) {
  if (min === null || max === null) return [0, 1];
  return min === max ? [min - by, max + by] : [min, max];
}

function rangeOfY(min, max, [least, most]) {
  if (min === null || max === null) return [least ?? 0, most ?? 1];
  if (least === 0 && max === 0) return [0, most ?? 1];
  const [low, high] = uPlot.rangeNum(min, max, 0.1, true);
  return [least ?? low, most ?? (high > (least ?? low) ? high : 1)];
}

/** Vertical lines with a text, where another attempt begins. */
function drawMarks(u, marks, theme) {
  const { ctx, bbox } = u;
  const ratio = globalThis.devicePixelRatio || 1;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.strokeStyle = theme.text;
  ctx.fillStyle = theme.strong;
  ctx.lineWidth = ratio;
  ctx.setLineDash([4 * ratio, 4 * ratio]);
  ctx.font = theme.font.replace(/^\d+px/, `${11 * ratio}px`);
  [ctx.textBaseline, ctx.textAlign] = ["top", "left"];
  let free = -Infinity;
  for (const { x, text } of marks) {
    const left = u.valToPos(x, "x", true);
    if (left < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    const size = ctx.measureText(text).width;
    // Texts that would lie on each other are left out; the line of the job's life has all attempts.
    if (left < free) continue;
    const isNearEnd = left + size + 8 * ratio > bbox.left + bbox.width;
    ctx.fillText(text, isNearEnd ? left - size - 4 * ratio : left + 4 * ratio, bbox.top + 2 * ratio);
    free = left + size + 8 * ratio;
  }
  ctx.restore();
}
