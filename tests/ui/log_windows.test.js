import assert from "node:assert/strict";
import test from "node:test";

import { connOf } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/log/attempt_place.js";
import {
  BLOCK_ROWS, countOf, endOf, extended, grown, isSameLog, MOST_CHARS, MOST_ROWS, opened, preceded, ROW_CHARS, rowAt, startOf,
} from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/log/windows.js";
import {
  begun, countText, further, marked, marksIn, MOST_HITS, nextHit, resumed,
} from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/log/search_state.js";

/** A window of a log, as the API gives it. */
function windowOf(log, offset, end, more = {}) {
  const data = log.slice(offset, end);
  const lines = data.split("\n");
  const bytes = lines.map((line) => line.length + 1);
  bytes[bytes.length - 1] -= 1;
  if (!bytes[bytes.length - 1]) [lines.pop(), bytes.pop()];
  const whole = { whole_start: offset === 0 || log[offset - 1] === "\n", whole_end: data.endsWith("\n") || !data };
  return { offset, end, lines, bytes, ...whole, at_end: end >= log.length, file: "f", log: 1, size: log.length, start: 0, stop: log.length, grows: true, problem: "", ...more };
}

const texts = (held) => held.blocks.flatMap(({ rows }) => rows.map(({ text }) => text));

test("windows that lie next to each other are one text", () => {
  const log = "one\ntwo\nthree\nfour";
  let held = opened(windowOf(log, 4, 8));
  held = extended(held, windowOf(log, 8, 16));
  held = preceded(held, windowOf(log, 0, 4));
  assert.deepEqual(texts(held), ["one", "two", "three", "fo"]);
  held = extended(held, windowOf(log, 16, 18));
  assert.deepEqual(texts(held), ["one", "two", "three", "four"]);
  assert.deepEqual([startOf(held), endOf(held), held.atEnd, countOf(held)], [0, 18, true, 4]);
  // The place of each row is known although what is shown may be shorter or longer.
  assert.deepEqual(held.blocks.flatMap(({ rows }) => rows.map(({ offset, size }) => [offset, size])), [[0, 4], [4, 4], [8, 6], [14, 4]]);
  assert.deepEqual([rowAt(held, 9)?.text, rowAt(held, 17)?.text, rowAt(held, 18)], ["three", "four", null]);
});

test("what does not lie there is not taken", () => {
  const log = "one\ntwo\nthree\nfour";
  const held = opened(windowOf(log, 4, 8));
  assert.equal(extended(held, windowOf(log, 14, 18)), held);
  assert.equal(extended(held, windowOf(log, 4, 8)), held);
  assert.equal(preceded(held, windowOf(log, 8, 14)), held);
  assert.equal(extended(held, windowOf(log, 8, 14, { file: "another" })), held);
  assert.equal(isSameLog(held, windowOf("short", 0, 5)), false);
  assert.equal(isSameLog(held, windowOf(log, 0, 4)), true);
  assert.equal(grown(held, windowOf(`${log}more`, 18, 22)).size, 22);
});

test("a page that is watched for hours holds a limited part of the end", () => {
  let log = "";
  let held = opened(windowOf("", 0, 0));
  assert.equal(countOf(held), 0);
  held = extended(held, windowOf("first\n", 0, 6));
  log = "first\n";
  for (let step = 0; step < 400; step += 1) {
    const before = log.length;
    log += `step ${step}\n`.repeat(50);
    held = extended(held, windowOf(log, before, log.length));
    assert.equal(endOf(held), log.length);
  }
  assert.ok(countOf(held) <= MOST_ROWS && countOf(held) > MOST_ROWS / 2);
  assert.ok(held.blocks.every(({ rows }) => rows.length <= BLOCK_ROWS));
  assert.equal(texts(held).at(-1), "step 399");
  // Backwards, the end is dropped.
  while (startOf(held) > 0) {
    const end = startOf(held);
    const window = windowOf(log, Math.max(0, log.lastIndexOf("\n", Math.max(0, end - 4000)) + 1), end);
    held = preceded(held, window);
  }
  assert.equal(texts(held)[0], "first");
  assert.ok(countOf(held) <= MOST_ROWS);
  assert.equal(held.atEnd, false);
});

test("a line without an end comes in rows that can be drawn", () => {
  const log = "x".repeat(300_000);
  let held = opened(windowOf(log, 0, 100_000));
  for (let at = 100_000; at < 3e5; at += 100_000) held = extended(held, windowOf(log, at, at + 100_000));
  assert.equal(texts(held).join(""), log);
  assert.ok(texts(held).every(({ length }) => length <= ROW_CHARS));
  const rows = held.blocks.flatMap((block) => block.rows);
  assert.deepEqual([rows[0].isStart, rows[1].isStart, rows.at(-1).isEnd], [true, false, false]);
  assert.equal(rows.reduce((sum, { size }) => sum + size, 0), log.length);
  for (let at = 0; at < 40; at += 1) held = extended(held, windowOf(log.repeat(20), endOf(held), endOf(held) + 100_000));
  assert.ok(texts(held).join("").length <= MOST_CHARS + 100_000);
});

test("a progress bar is one row, however often it is drawn", () => {
  const bar = (step) => `\r${step}/5000 ${"#".repeat(60)}`;
  let log = "start\n";
  let held = opened(windowOf(log, 0, 6));
  for (let step = 0; step < 5000; step += 1) {
    const before = log.length;
    log += bar(step);
    held = extended(held, windowOf(log, before, log.length));
  }
  assert.equal(countOf(held), 2);
  assert.ok(texts(held)[1].endsWith(bar(4999)));
  assert.ok(texts(held)[1].length <= ROW_CHARS);
  held = extended(held, windowOf(`${log}\nend\n`, log.length, log.length + 5));
  assert.deepEqual(texts(held).slice(2), ["end"]);
});

test("a search knows what comes next, or where to ask", () => {
  let found = begun(0);
  assert.deepEqual(nextHit(found, -1, "after", 0), { ask: 0 });
  found = further(found, { hits: [{ line: 10 }, { line: 30 }], next: 50, stop: 100 });
  assert.deepEqual([found.hits, found.reached, found.isDone, countText(found)], [[10, 30], 50, false, "2+ lines"]);
  assert.deepEqual(nextHit(found, -1, "after"), { line: 10 });
  assert.deepEqual(nextHit(found, 10, "after"), { line: 30 });
  assert.deepEqual(nextHit(found, 30, "after", 34), { ask: 50 });
  assert.deepEqual(nextHit(found, 80, "after", 84), { ask: 84 });
  assert.deepEqual(nextHit(found, 80, "before"), { ask: 80 });
  assert.deepEqual(nextHit(found, 30, "before"), { line: 10 });
  assert.deepEqual(nextHit(found, 10, "before"), null);
  found = further(found, { hits: [{ line: 30 }, { line: 90 }], next: null, stop: 100 });
  assert.deepEqual([found.hits, found.isDone], [[10, 30, 90], true]);
  assert.deepEqual(nextHit(found, 90, "after"), null);
  assert.equal(countText(found, 30), "2 of 3");
  assert.deepEqual(nextHit(found, 95, "before"), { line: 90 });
  assert.equal(resumed(found, 100), found);
  assert.equal(resumed(found, 120).isDone, false);
  assert.equal(countText(further(begun(0), { hits: [], next: null, stop: 5 })), "no line");
  assert.equal(countText(begun(0)), "searching");
});

test("not all lines of a log are remembered", () => {
  let found = begun(0);
  for (let at = 0; at < MOST_HITS + 500; at += 500) {
    found = further(found, { hits: Array.from({ length: 500 }, (_, index) => ({ line: at + index })), next: at + 500, stop: 1e9 });
  }
  assert.deepEqual([found.hits.length, found.isFull, found.isDone, countText(found)], [MOST_HITS, true, false, "5,000+ lines"]);
  assert.deepEqual(nextHit(found, MOST_HITS - 1, "after", MOST_HITS), { ask: MOST_HITS });
});

test("what was found is marked in coloured text as well", () => {
  const pieces = [{ text: "lo", style: { fg: 1 } }, { text: "ss: los", style: null }, { text: "s", style: { fg: 2 } }];
  const query = { q: "LOSS", isRegex: false, ignoreCase: true };
  const marks = marksIn("loss: loss", query);
  assert.deepEqual(marks, [[0, 4], [6, 10]]);
  assert.deepEqual(marked(pieces, marks).map(({ text, isFound = false }) => [text, isFound]), [["lo", true], ["ss", true], [": ", false], ["los", true], ["s", true]]);
  assert.deepEqual(marksIn("a.b axb", { q: "a.b", isRegex: false, ignoreCase: false }), [[0, 3]]);
  assert.deepEqual(marksIn("aaaa", { q: "(a+)+$", isRegex: true, ignoreCase: false }), []);
  assert.equal(marksIn("a".repeat(5000), { q: "a", isRegex: false, ignoreCase: false }).length, 100);
  assert.equal(marked(pieces, []), pieces);
});

test("the log of an attempt is on the cluster where it was", () => {
  const job = { conn_id: "gpu02", attempts: [{ attempt: 1, conn_id: "gpu01" }, { attempt: 2, conn_id: "gpu02" }] };
  assert.deepEqual([1, 2, 3, null].map((attempt) => connOf(job, attempt)), ["gpu01", "gpu02", "gpu02", "gpu02"]);
});
