import assert from "node:assert/strict";
import test from "node:test";

import { EVENTS, LiveLine, pauseMs, POLLING, SOCKET } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/parts/live_line.js";

/** A line of which a test decides what each way does, and when time passes. */
function makeLine({ poll = async () => true } = {}) {
  const seen = { messages: [], hows: [], opened: [], closed: 0, sent: [] };
  let now = 0;
  let timers = [];
  const clock = {
    random: () => 0.5,
    setTimeout: (act, ms) => {
      const timer = { act, at: now + ms };
      timers.push(timer);
      return timer;
    },
    clearTimeout: (timer) => (timers = timers.filter((other) => other !== timer)),
  };
  const way = (name) => (end) => {
    seen.opened.push([name, end]);
    return { close: () => (seen.closed += 1), send: (wish) => seen.sent.push(wish) };
  };
  const told = { onMessage: (message) => seen.messages.push(message), onHow: (how) => seen.hows.push(how) };
  const line = new LiveLine({ socket: way(SOCKET), events: way(EVENTS), poll }, told, clock);
  const pass = (ms) => {
    now += ms;
    const due = timers.filter((timer) => timer.at <= now);
    timers = timers.filter((timer) => timer.at > now);
    for (const timer of due) timer.act();
  };
  const last = () => seen.opened.at(-1)[1];
  return { line, seen, pass, last, timers: () => timers.length };
}

test("pauses grow, up to a longest one, and differ", () => {
  const pauses = [0, 1, 2, 3, 20].map((failures) => pauseMs(failures, () => 0.5));
  assert.deepEqual(pauses, [500, 1000, 2000, 4000, 30000]);
  assert.notEqual(pauseMs(3, () => 0), pauseMs(3, () => 1));
});

test("a socket that works is kept, and opened again when it breaks", () => {
  const { line, seen, pass, last } = makeLine();
  line.open();
  last().heard({ type: "alive" });
  for (let round = 0; round < 5; round += 1) {
    last().failed();
    pass(60_000);
    last().heard({ type: "alive" });
  }
  assert.deepEqual(new Set(seen.opened.map(([name]) => name)), new Set([SOCKET]));
  assert.equal(seen.opened.length, 6);
});

test("where no socket comes through there are events, and where these do not either, questions", async () => {
  const asked = [];
  const { line, seen, pass, last } = makeLine({ poll: async (tell) => asked.push(tell({ type: "job", job: {} })) });
  line.open();
  for (let round = 0; round < 2; round += 1) {
    last().failed();
    pass(60_000);
  }
  assert.equal(seen.opened.at(-1)[0], EVENTS);
  // A proxy that keeps them back says nothing at all.
  for (let round = 0; round < 2; round += 1) {
    pass(10_000);
    pass(60_000);
  }
  await null;
  assert.equal(seen.hows.at(-1), POLLING);
  assert.equal(asked.length, 1);
  pass(300_000);
  assert.equal(seen.opened.at(-1)[0], SOCKET);
});

test("silence is taken for a broken line", () => {
  const { line, seen, pass, last } = makeLine();
  line.open();
  last().heard({ type: "alive" });
  pass(49_000);
  assert.equal(seen.closed, 0);
  pass(2_000);
  assert.equal(seen.closed, 1);
  pass(60_000);
  assert.equal(seen.opened.length, 2);
});

test("while nobody sees the page, nothing is open and nothing happens", () => {
  const { line, seen, pass, last, timers } = makeLine();
  line.open();
  last().heard({ type: "alive" });
  const before = last();
  line.close();
  assert.equal(seen.closed, 1);
  assert.equal(timers(), 0);
  before.heard({ type: "job" });
  before.failed();
  pass(600_000);
  assert.equal(seen.opened.length, 1);
  assert.equal(seen.messages.length, 1);
  line.open();
  assert.equal(seen.opened.length, 2);
});

test("what the page wants is said at once and after each break", () => {
  const { line, seen, pass, last } = makeLine();
  line.ask({ follow_log: false });
  line.open();
  assert.deepEqual(last().wish, { follow_log: false });
  last().heard({ type: "alive" });
  line.ask({ follow_log: true });
  line.ask({ follow_log: true });
  assert.deepEqual(seen.sent, [{ follow_log: true }]);
  last().failed();
  pass(60_000);
  assert.deepEqual(last().wish, { follow_log: true });
});

test("after the end nothing is tried again, until the page is looked at anew", () => {
  const { line, seen, pass, last } = makeLine();
  line.open();
  last().heard({ type: "gone", status: 403 });
  last().failed();
  pass(600_000);
  assert.equal(seen.opened.length, 1);
  line.open();
  assert.equal(seen.opened.length, 2);
});
