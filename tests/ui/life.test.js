// The line of a job's life: where its parts are.

import assert from "node:assert/strict";
import { test } from "node:test";

const { lineOf } = await import("../../provider/airflow_provider_gpu_cluster/plugins/ui/job/life/scale.js");

const T0 = Date.parse("2026-01-02T03:00:00Z");
const part = (kind, from, to) => ({ kind, attempt: 1, label: kind, start: new Date(T0 + 1000 * from).toISOString(), end: to === null ? null : new Date(T0 + 1000 * to).toISOString() });
const places = (placed) => placed.map(({ left, width }) => [left, width].map((share) => Number(share.toFixed(4))));

test("parts are drawn to scale, gaps as well", () => {
  const line = lineOf([part("queued", 0, 10), part("running", 10, 60), part("running", 80, 100)], T0);
  assert.deepEqual(places(line.placed), [[0, 0.1], [0.1, 0.5], [0.8, 0.2]]);
  assert.equal(line.seconds, 100);
  assert.ok(line.isEven);
  assert.equal(line.compressed, line.placed);
});

test("what lasts goes on until now", () => {
  const line = lineOf([part("queued", 0, 10), part("running", 10, null)], T0 + 40_000);
  assert.deepEqual(places(line.placed), [[0, 0.25], [0.25, 0.75]]);
  assert.equal(line.placed[1].seconds, 30);
  // A clock of the browser that is late makes nothing go back.
  assert.equal(lineOf([part("running", 10, null)], T0).placed[0].seconds, 0);
});

test("where one part dwarfs the others, a second form shows them all", () => {
  const line = lineOf([part("queued", 0, 4), part("running", 4, 10_004), part("collecting", 10_004, 10_004)], T0);
  assert.ok(!line.isEven);
  assert.ok(line.placed[0].width < 0.001);
  assert.deepEqual(places(line.compressed), [[0, 0.0196], [0.0196, 0.9804], [1, 0]]);
  assert.ok(lineOf([part("running", 0, 100), part("collecting", 100, 100)], T0).isEven);
});

test("nothing, and what is no time, makes no line", () => {
  assert.deepEqual(lineOf([], T0).placed, []);
  assert.deepEqual(lineOf([{ kind: "running", attempt: 1, label: "", start: "soon", end: null }], T0).placed, []);
});
