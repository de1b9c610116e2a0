import assert from "node:assert/strict";
import { test } from "node:test";
import { durationText, relativeText, secondsBetween, timeText } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/parts/time_text.js";

test("a time is written as Airflow writes it, in the zone that is chosen", () => {
  const time = "2026-03-29T00:30:05.4+00:00";
  assert.equal(timeText(time, "UTC"), "2026-03-29 00:30:05");
  assert.equal(timeText(time, "Europe/Berlin"), "2026-03-29 01:30:05");
  assert.equal(timeText("2026-03-29T01:30:05Z", "Europe/Berlin"), "2026-03-29 03:30:05");
  assert.equal(timeText("2026-01-01T00:00:00Z", "America/New_York"), "2025-12-31 19:00:00");
  assert.equal(timeText(0, "UTC"), "1970-01-01 00:00:00");
  assert.equal(timeText(time, "No/Such_Zone"), "2026-03-29 00:30:05");
  for (const none of [null, undefined, "", "yesterday"]) assert.equal(timeText(none, "UTC"), "");
});

test("a duration has at most two units", () => {
  const texts = { 0: "0 s", 0.25: "0.3 s", 9.96: "10.0 s", 10: "10 s", 61: "1 min 01 s", 3599: "59 min 59 s", 7500: "2 h 05 min", 90000: "1 d 01 h" };
  for (const [seconds, text] of Object.entries(texts)) assert.equal(durationText(Number(seconds)), text);
  for (const none of [null, undefined, NaN, Infinity, "5"]) assert.equal(durationText(none), "");
  assert.equal(durationText(-3), "0 s");
});

test("how long ago, or in how long", () => {
  const now = Date.parse("2026-01-01T12:00:00Z");
  assert.equal(relativeText("2026-01-01T11:58:30Z", now), "1 min 30 s ago");
  assert.equal(relativeText("2026-01-01T14:00:00Z", now), "in 2 h 00 min");
  assert.equal(relativeText("2026-01-01T12:00:00.4Z", now), "now");
  assert.equal(relativeText(null, now), "");
  assert.equal(secondsBetween("2026-01-01T11:59:59Z", now), 1);
});
