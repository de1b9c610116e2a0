// Elements of an array are put in order, compared, and drawn.

import assert from "node:assert/strict";
import { test } from "node:test";
import { axisOf, lineOf } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/elements/axes.js";
import { bestAndWorst, columnsOf, goalOf, numberOf, sorted, usualColumns, usualGoal } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/elements/columns.js";
import { countsOf, failedFirst, outdated, statesOf, stepOf } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/elements/order.js";

const ROWS = [
  { index: 0, parameters: { lr: 0.001, model: "a", epochs: 5 }, metrics: { loss: 0.5, nan: "NaN" }, started_at: "2026-01-01T00:00:00Z", ended_at: "2026-01-01T00:00:09Z" },
  { index: 1, parameters: { lr: 1, model: "b", epochs: 5 }, metrics: { loss: "NaN" }, progress: { step: 3 } },
  { index: 2, parameters: { lr: 0.03, model: "a", epochs: 5 }, metrics: { loss: 0.25, list: [1] } },
  { index: 3, parameters: { epochs: 5 }, metrics: null },
];
const columns = columnsOf(ROWS);
const column = (id) => columns.find((one) => one.id === id);

test("live states count, then those that were told, and failed ones come first", () => {
  const told = new Map([[0, { state: "RUNNING" }], [2, { state: "SUCCEEDED" }]]);
  const states = statesOf(4, [["FAILED", "user_error"], ["SUCCEEDED", null]], told);
  assert.deepEqual(states.map(({ state }) => state), ["FAILED", "SUCCEEDED", "SUCCEEDED", "UNKNOWN"]);
  assert.deepEqual(outdated(states, new Map([[0, "RUNNING"], [2, "SUCCEEDED"]])), [0]);
  const mixed = statesOf(5, ["SUCCEEDED", "RUNNING", "odd", "FAILED", "LOST"].map((state) => [state, null]), new Map());
  assert.deepEqual(failedFirst(mixed).map(({ index }) => index), [3, 4, 2, 1, 0]);
  assert.deepEqual(countsOf(mixed)[0], ["FAILED", 1]);
});

test("ten thousand elements are put in order at once", () => {
  const began = performance.now();
  const states = statesOf(10_000, Array.from({ length: 10_000 }, (_, at) => [at % 7 ? "SUCCEEDED" : "FAILED", null]), new Map());
  assert.equal(failedFirst(states)[1428].index, 9996);
  assert.ok(performance.now() - began < 1000);
});

test("arrow keys stay in the grid", () => {
  assert.deepEqual(["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Home", "End", "x"].map((key) => stepOf(key, 5, 12, 4)), [6, 4, 9, 1, 0, 11, null]);
  assert.deepEqual([stepOf("ArrowDown", 10, 12, 4), stepOf("ArrowUp", 1, 12, 4)], [11, 0]);
});

test("columns are what elements have, and those that differ are shown", () => {
  assert.deepEqual(columns.map(({ id }) => id), ["parameter epochs", "parameter lr", "parameter model", "metric loss", "metric nan", "metric list", "progress step", "duration"]);
  assert.deepEqual([column("parameter epochs").differs, column("parameter lr").differs], [false, true]);
  assert.deepEqual([column("metric loss").isNumber, column("parameter model").isNumber], [true, false]);
  assert.deepEqual(usualColumns(columns), ["parameter lr", "parameter model", "metric loss", "metric nan", "metric list", "duration"]);
  assert.deepEqual(usualGoal(columns), { id: "metric loss", goal: "min" });
  assert.equal(column("metric list").of(ROWS[2]), "[1]");
  assert.equal(column("duration").of(ROWS[0]), 9);
});

test("of environment variables, those that not all elements have are shown", () => {
  const rows = [["LR", "SEED"], ["SEED"], ["LR", "SEED"]].map((env_names, index) => ({ index, env_names, parameters: { n: index } }));
  const found = columnsOf(rows);
  assert.deepEqual(found.map(({ id }) => id), ["parameter n", "env $LR"]);
  assert.deepEqual(usualColumns(found), ["parameter n", "env $LR"]);
  assert.deepEqual(rows.map(found[1].of), ["given", undefined, "given"]);
});

test("too many names are left out", () => {
  const metrics = Object.fromEntries(Array.from({ length: 5000 }, (_, at) => [`m${at}`, at]));
  assert.equal(columnsOf([{ index: 0, metrics }]).filter(({ kind }) => kind === "metric").length, 200);
});

test("what is not a number comes last, in either order", () => {
  const order = (id, isDown) => sorted(ROWS, column(id), isDown).map(({ index }) => index);
  assert.deepEqual(order("metric loss", false), [2, 0, 1, 3]);
  assert.deepEqual(order("metric loss", true), [0, 2, 1, 3]);
  assert.deepEqual(order("parameter model", false), [0, 2, 1, 3]);
  assert.deepEqual(order("parameter lr", true), [1, 2, 0, 3]);
});

test("best and worst", () => {
  assert.deepEqual(bestAndWorst(ROWS, column("metric loss"), "min"), { best: new Set([2]), worst: new Set([0]) });
  assert.deepEqual(bestAndWorst(ROWS, column("metric loss"), "max"), { best: new Set([0]), worst: new Set([2]) });
  assert.deepEqual(bestAndWorst(ROWS.slice(0, 1), column("metric loss"), "min").best, new Set());
  assert.deepEqual(bestAndWorst([], column("metric loss"), "min").worst, new Set());
  assert.deepEqual(["val_loss", "test.accuracy", "steps", "WER", "mAP"].map(goalOf), ["min", "max", "", "min", "max"]);
  assert.deepEqual([numberOf("NaN"), numberOf("-Infinity"), numberOf("7"), numberOf(null), numberOf(true)], [NaN, -Infinity, null, null, null]);
});

test("axes", () => {
  const axis = axisOf(ROWS, column("parameter lr"));
  assert.equal(axis.isLog, true);
  assert.deepEqual(ROWS.map(axis.place).map((at) => at && Math.round(100 * at)), [0, 100, 49, null]);
  assert.deepEqual(axisOf(ROWS, column("parameter model")).ticks, [{ at: 0, value: "a" }, { at: 1, value: "b" }]);
  assert.equal(axisOf(ROWS, column("parameter epochs")).place(ROWS[0]), 0.5);
  assert.equal(axisOf(ROWS, column("metric nan")), null);
  const many = Array.from({ length: 50 }, (_, index) => ({ index, parameters: { name: `n${index}` } }));
  assert.equal(axisOf(many, columnsOf(many)[0]), null);
});

test("a line has a gap where there is no value", () => {
  const axes = [0.5, null, 1, 0].map((at) => ({ place: () => at }));
  assert.equal(lineOf({}, axes, (at) => at * 10, (at) => at), "M0.0 0.5M20.0 1.0L30.0 0.0");
});
