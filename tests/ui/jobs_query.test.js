import assert from "node:assert/strict";
import test from "node:test";

import { apiQuery, changedQuery, isFiltered, nextOrder, readQuery, sortOf, unfiltered, writeQuery } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/jobs/query.js";
import { momentOf, shownAt } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/jobs/wall_clock.js";

const read = (text) => readQuery(new URLSearchParams(text));

test("a view is kept in the address as it is", () => {
  const text = "dag_id=a%26b&dag_id=c&state=FAILED&q=loss+nan&range=7d&is_latest=true&order_by=gpu_seconds&limit=1000&page=3";
  const again = writeQuery(read(text));
  assert.deepEqual(read(again.toString()), read(text));
  assert.deepEqual(again.getAll("dag_id"), ["a&b", "c"]);
});

test("what is not said is not written, and what is not ours stays", () => {
  assert.equal(writeQuery(read("")).toString(), "");
  assert.equal(writeQuery(read("view=clusters&page=2"), new URLSearchParams("view=clusters&page=9")).toString(), "view=clusters&page=2");
});

test("nonsense in the address is no query", () => {
  const query = read("limit=7&page=-4&range=9y&since=yesterday&until=&state=&page=x");
  assert.deepEqual(query, read(""));
  assert.equal(read("page=1e99").page, 1_000_000);
  assert.equal(read("range=toString").range, "");
});

test("a range ends now, and is the same question within a minute", () => {
  const now = Date.UTC(2026, 0, 31, 13, 5, 59);
  const asked = apiQuery(read("range=24h&until=2020-01-01T00:00:00Z&page=2"), now);
  assert.equal(asked.since, "2026-01-30T13:05:00.000Z");
  assert.equal(asked.until, "");
  assert.deepEqual([asked.limit, asked.offset], [50, 50]);
  assert.equal(apiQuery(read("since=2026-01-01T00:00:00%2B02:00"), now).since, "2025-12-31T22:00:00.000Z");
});

test("another filter begins at the first page, another page keeps the filter", () => {
  const query = read("q=x&page=4");
  assert.equal(changedQuery(query, { q: "y" }).page, 1);
  assert.deepEqual(changedQuery(query, { page: 5 }), { ...query, page: 5 });
  assert.equal(isFiltered(query), true);
  assert.equal(isFiltered(unfiltered(query)), false);
  assert.equal(isFiltered(read("page=4&order_by=user")), false);
});

test("a header sorts, and sorts the other way round", () => {
  const query = read("");
  assert.equal(sortOf(query, "submitted_at"), "descending");
  assert.equal(nextOrder(query, "submitted_at"), "submitted_at");
  assert.equal(sortOf(query, "user"), "none");
  assert.equal(nextOrder(query, "user"), "user");
  assert.equal(nextOrder(query, "gpu_seconds", "descending"), "-gpu_seconds");
});

test("a clock on the wall", () => {
  for (const [shown, zone, moment] of [
    ["2026-01-31T13:05", "UTC", "2026-01-31T13:05:00.000Z"],
    ["2026-01-31T13:05", "Asia/Kolkata", "2026-01-31T07:35:00.000Z"],
    ["2026-07-31T13:05", "America/New_York", "2026-07-31T17:05:00.000Z"],
    ["2026-03-29T01:30", "Europe/Berlin", "2026-03-29T00:30:00.000Z"],
    ["2026-03-29T03:30", "Europe/Berlin", "2026-03-29T01:30:00.000Z"],
    ["2026-10-25T01:59", "Europe/Berlin", "2026-10-24T23:59:00.000Z"],
    ["2026-10-25T03:00", "Europe/Berlin", "2026-10-25T02:00:00.000Z"],
  ]) {
    assert.equal(momentOf(shown, zone), moment, `${shown} ${zone}`);
    assert.equal(shownAt(moment, zone), shown, `${moment} ${zone}`);
  }
  // Twice, and never.
  assert.equal(momentOf("2026-10-25T02:30", "Europe/Berlin"), "2026-10-25T00:30:00.000Z");
  assert.equal(momentOf("2026-03-29T02:30", "Europe/Berlin"), "2026-03-29T01:30:00.000Z");
  assert.equal(momentOf("", "UTC"), "");
  assert.equal(shownAt("soon", "UTC"), "");
  assert.equal(momentOf("2026-01-31T13:05", "Mars/Olympus"), "2026-01-31T13:05:00.000Z");
});
