// The curves of a job: what is drawn, and what comes live.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const UI = "../../provider/airflow_provider_gpu_cluster/plugins/ui";
const { flatNumbers, usageNumbers } = await import(`${UI}/job/curves/flat_numbers.js`);
const { joined, thinned } = await import(`${UI}/job/curves/thinning.js`);
const { smoothed } = await import(`${UI}/job/curves/smoothing.js`);
const { segmentsOf, nearestIndex } = await import(`${UI}/job/curves/segments.js`);
const { plotOf, rowsOf, valuesAt } = await import(`${UI}/job/curves/plot.js`);
const { placesOf } = await import(`${UI}/job/curves/places.js`);
const { DARK, LIGHT, lookOf } = await import(`${UI}/job/curves/palette.js`);
const { tickTexts, unitOf, xText } = await import(`${UI}/job/curves/units.js`);
const { timeTicks } = await import(`${UI}/job/curves/time_ticks.js`);
const { usageGroups } = await import(`${UI}/job/curves/usage_groups.js`);
const history = await import(`${UI}/job/curves/history.js`);

const CASES = JSON.parse(readFileSync(new URL("./flat_numbers.json", import.meta.url), "utf8"));
const points = (...ys) => ys.map((y, index) => ({ at: index, x: index, y, t: 1000 + index }));

test("a live line has the same numbers as the history", () => {
  for (const { line, numbers, count } of CASES.progress) {
    if (numbers) assert.deepEqual(flatNumbers(line), numbers);
    else assert.equal(flatNumbers(line).length, count);
  }
  for (const { line, numbers } of CASES.usage) assert.deepEqual(usageNumbers(line), numbers);
  assert.deepEqual(flatNumbers({ a: "NaN", b: "-Infinity", c: "text" }), [["a", NaN], ["b", -Infinity]]);
  assert.equal(flatNumbers(Object.fromEntries(Array.from({ length: 20_000 }, (_, n) => [`m${n}`, n]))).length, 12_000);
});

test("few points keep first, last, every extreme and the gaps", () => {
  const many = points(...Array.from({ length: 10_000 }, (_, n) => Math.sin(n / 50)));
  many[3333].y = 99;
  many[4444].y = -99;
  many[5555].y = null;
  const few = thinned(many, 400);
  assert.ok(few.length <= 400 && few.length > 200);
  for (const index of [0, 3333, 4444, 5555, 9999]) assert.ok(few.includes(many[index]), String(index));
  assert.deepEqual(few, [...few].sort((one, other) => one.at - other.at));
  assert.equal(thinned(many.slice(0, 400), 400).length, 400);
});

test("slices of a history come together in order, and twice the same line is once there", () => {
  const all = points(1, 2, 3, 4, 5, 6);
  assert.deepEqual(joined([all[0], all[2], all[5]], [all[1], all[2], all[4]]), [0, 1, 2, 4, 5].map((index) => all[index]));
  assert.deepEqual(joined(all.slice(0, 2), all.slice(2)), all);
  assert.deepEqual(joined([], all), all);
});

test("smoothing begins at the first value, and a gap stays one", () => {
  assert.deepEqual(smoothed([4, 4, 4], 0.9).map((value) => Number(value.toFixed(9))), [4, 4, 4]);
  assert.deepEqual(smoothed([1, null, 3], 0.5), [1, null, 7 / 3]);
  assert.deepEqual(smoothed([1, 2], 0), [1, 2]);
  assert.deepEqual(smoothed([], 0.5), []);
});

test("each attempt is a line of its own, and so is what starts over within one", () => {
  const steps = [1, 2, 3, 2, 3, 4, 0, 1, 2];
  const told = steps.map((x, index) => ({ at: 10 * index, x, y: index, t: null }));
  const { segments } = segmentsOf(told, [{ attempt: 1, at: 0 }, { attempt: 2, at: 30 }, { attempt: 3, at: null }], "x");
  assert.deepEqual(segments.map(({ attempt, xs }) => [attempt, xs]), [[1, [1, 2, 3]], [2, [2, 3, 4]], [2, [0, 1, 2]]]);
});

test("lines out of order are drawn in order, and of two about one step the last counts", () => {
  const told = [1, 3, 2, 4, 4, 5].map((x, at) => ({ at, x, y: at, t: null }));
  const { segments } = segmentsOf(told, [], "x");
  assert.deepEqual(segments.map(({ xs, ys }) => [xs, ys]), [[[1, 2, 3, 4, 5], [0, 2, 1, 4, 5]]]);
  assert.equal(segmentsOf(told, [], "t").without, 6);
});

test("a plot has one list of x, a gap where there is no number, and nothing where a line has no point", () => {
  const curves = [
    { name: "a", label: "a", points: points(1, null, 3) },
    { name: "b", label: "b", points: [{ at: 5, x: 1.5, y: -1, t: 1 }, { at: 6, x: null, y: 1, t: 1 }] },
  ];
  const plot = plotOf(curves, [], { over: "x" });
  assert.deepEqual(plot.data, [[0, 1, 1.5, 2], [1, null, undefined, 3], [undefined, undefined, -1, undefined]]);
  assert.equal(plot.without, 1);
  assert.deepEqual(valuesAt(plot, 2), [null, -1]);
  assert.deepEqual(valuesAt(plot, 3), [3, null]);
  const smooth = plotOf(curves, [], { over: "x", smoothing: 0.5, isLog: true });
  assert.deepEqual(smooth.lines.map(({ name, isRaw }) => [name, isRaw]), [["a", true], ["a", false], ["b", true], ["b", false]]);
  assert.equal(smooth.notAboveZero, 1);
  assert.deepEqual(smooth.data[3], [undefined, undefined, null, undefined]);
});

test("where another attempt begins is marked once", () => {
  const told = [1, 2, 3, 1, 2].map((x, at) => ({ at, x, y: at, t: 1000 + at }));
  const sections = [{ attempt: 1, at: 0 }, { attempt: 2, at: 3 }];
  const curves = [{ name: "a", label: "a", points: told }, { name: "b", label: "b", points: told }];
  assert.deepEqual(plotOf(curves, sections, { over: "t" }).borders, [{ x: 1003, attempt: 2 }]);
});

test("a table has the first and the last place", () => {
  assert.deepEqual(rowsOf(3, 10), [0, 1, 2]);
  assert.deepEqual(rowsOf(1000, 3), [0, 500, 999]);
  assert.deepEqual(rowsOf(0, 3), []);
});

test("the cursor finds the same place over steps and over time", () => {
  const places = placesOf([{ x: 1, t: 100 }, { x: 2, t: 110 }, { x: 1, t: 200 }, { x: null, t: 210 }].map((point) => ({ ...point, at: 0, y: 0 })));
  assert.deepEqual([places.timeOf(1), places.timeOf(1.9), places.xOf(108), places.xOf(500)], [200, 110, 2, 1]);
  assert.deepEqual([placesOf([]).timeOf(1), placesOf([]).xOf(1)], [null, null]);
  assert.equal(nearestIndex([], 1), -1);
});

test("values are written with their units", () => {
  assert.equal(unitOf("percent").text(93.04), "93.04 %");
  assert.equal(unitOf("gpu_memory_bytes").text(61203283968), "57 GiB");
  assert.equal(unitOf("loss").text(0.30999), "0.30999");
  assert.deepEqual(tickTexts([0, 0.1, 0.30000000000000004, null], unitOf("loss").text), ["0", "0.1", "0.3", ""]);
  assert.equal(xText(1234567), "1,234,567");
});

test("a time axis has the date where it begins or changes", () => {
  const noon = Date.parse("2026-01-31T23:59:50Z") / 1000;
  assert.deepEqual(timeTicks([noon, noon + 5, noon + 10, null], 5, "UTC"), ["23:59:50\n2026-01-31", "23:59:55", "00:00:00\n2026-02-01", ""]);
  assert.deepEqual(timeTicks([noon], 3600, "Asia/Tokyo"), ["08:59\n2026-02-01"]);
  assert.deepEqual(timeTicks([noon], 86400, "UTC"), ["2026-01-31"]);
});

test("curves of use are grouped by what they count, GPUs in the order of their numbers", () => {
  const groups = usageGroups(["host/cpus", "gpu/10/percent", "gpu/2/percent", "gpu/n:1/memory_bytes", "host/n/memory_bytes", "odd"]);
  assert.deepEqual(groups.map(({ unit, curves }) => [unit, curves.map(({ label }) => label)]), [
    ["percent", ["GPU 2", "GPU 10"]],
    ["gpu_memory_bytes", ["n GPU 1"]],
    ["memory_bytes", ["n"]],
    ["cpus", ["host"]],
    ["odd", ["host"]],
  ]);
});

/** Contrast as WCAG defines it. */
function contrast(one, other) {
  const light = (color) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16) / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

test("curves can be told from their background and from each other, without colours as well", () => {
  for (const color of LIGHT) assert.ok(contrast(color, "#ffffff") >= 3, color);
  for (const color of DARK) assert.ok(contrast(color, "#1a1a1a") >= 3, color);
  const looks = Array.from({ length: 16 }, (_, number) => lookOf(number, false));
  assert.equal(new Set(looks.slice(0, 8).map(({ dash }) => dash.join())).size, 8);
  assert.equal(new Set(looks.map(({ color, dash }) => color + dash)).size, 16);
});

const answer = (more = {}) => ({
  names: [{ name: "step", count: 2, least: 1, most: 2, last: 2, is_rising: true }, { name: "loss", count: 2, least: 3, most: 4, last: 3, is_rising: false }],
  more_names: 0, x: "step", times: "samples", within_s: 2,
  curves: [{ name: "loss", at: [100, 120], x: [1, 2], y: [4, 3], t: [10, 12] }],
  sections: [{ attempt: 1, at: 0, started_at: null, ended_at: null, reason: null, resumed_from: null }],
  slice: 0, slices: 1, until: 140, live_from: 90, lines: 2, bad_lines: 0, left_out_bytes: 0, problem: "", ...more,
});

test("lines that come live go on where the history ends, once", () => {
  let known = history.withFirst(history.emptyHistory(), answer());
  known = history.withProgress(known, [
    { at: 30, t: 12, attempt: 1, values: { step: 2, loss: 3 } },
    { at: 50, t: 14, attempt: 1, values: { step: 3, loss: "NaN", acc: 0.5 } },
  ]);
  assert.deepEqual(known.curves.get("loss").map(({ at, x, y, t }) => [at, x, y, t]), [[100, 1, 4, 10], [120, 2, 3, 12], [140, 3, null, 14]]);
  assert.deepEqual(known.names.map(({ name, count, last }) => [name, count, last]), [["step", 3, 3], ["loss", 3, "NaN"], ["acc", 1, 0.5]]);
  assert.equal(history.withProgress(known, [{ at: 50, t: 14, attempt: 1, values: { step: 3, loss: 1 } }]), known);
  known = history.withProgress(known, [{ at: 60, t: 15, attempt: 2, values: { step: 1, loss: 5 } }]);
  assert.deepEqual(known.sections.map(({ attempt, at }) => [attempt, at]), [[1, 0], [2, 150]]);
});

test("however much comes, points and names stay bounded", () => {
  let known = history.withFirst(history.emptyHistory(), answer());
  for (let block = 0; block < 30; block += 1) {
    const lines = Array.from({ length: 200 }, (_, n) => ({ at: 1000 + 200 * block + n, t: n, attempt: 1, values: { step: 200 * block + n, loss: n } }));
    known = history.withProgress(known, lines);
    assert.ok(known.curves.get("loss").length <= history.MOST_POINTS);
  }
  known = history.withProgress(known, [{ at: 99_999, t: 1, attempt: 1, values: Object.fromEntries(Array.from({ length: 10_000 }, (_, n) => [`m${n}`, n])) }]);
  assert.equal(known.names.length, 200);
  assert.equal(known.moreNames, 10_000 - 198);
});

test("slices of a large history add up", () => {
  let known = history.withFirst(history.emptyHistory(), answer({ slices: 3 }));
  known = history.withSlice(known, answer({ slice: 1, curves: [{ name: "loss", at: [110], x: [1.5], y: [9], t: [11] }], names: [{ name: "loss", count: 1, least: 9, most: 9, last: 9, is_rising: true }] }));
  assert.deepEqual(known.curves.get("loss").map(({ at }) => at), [100, 110, 120]);
  assert.deepEqual([known.slicesRead, known.lines, known.names[1].count, known.names[1].most, known.names[1].last], [2, 4, 3, 9, 3]);
});

test("samples of use that come live are added to each GPU's curve", () => {
  let known = history.withFirst(history.emptyHistory(), answer({ x: null, names: [], curves: [{ name: "gpu/0/percent", at: [10000], x: [], y: [50], t: [10] }] }));
  known = history.withUsage(known, [{ t: 10, gpus: [{ index: 0, percent: 1 }] }, { t: 12, gpus: [{ index: 0, percent: 60, power_w: 1 }, { index: 1, percent: 70 }], cpus: 2 }]);
  assert.deepEqual(known.curves.get("gpu/0/percent").map(({ y }) => y), [50, 60]);
  assert.deepEqual([...known.curves.keys()], ["gpu/0/percent", "gpu/1/percent", "host/cpus"]);
});

test("what curves are drawn over, and what is worth one", () => {
  const known = history.withFirst(history.emptyHistory(), answer());
  assert.deepEqual(history.namesForX(known), ["step"]);
  assert.deepEqual(history.metricsOf(known).map(({ name }) => name), ["loss"]);
});
