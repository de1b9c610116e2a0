import assert from "node:assert/strict";
import { test } from "node:test";
import { bytesText, countText, numberText, wordsText } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/parts/number_text.js";

test("bytes", () => {
  const texts = { 0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1048576: "1 MiB", 80000000000: "74.5 GiB" };
  for (const [bytes, text] of Object.entries(texts)) assert.equal(bytesText(Number(bytes)), text);
  for (const none of [null, undefined, NaN, "5"]) assert.equal(bytesText(none), "");
});

test("numbers can be read, and what is none stays as it is", () => {
  const texts = [[0, "0"], [3, "3"], [0.3123456789, "0.312346"], [12345.678, "12,345.68"], [1e-7, "1e-7"], [1.5e12, "1.5e+12"], [NaN, "NaN"], ["NaN", "NaN"], [null, ""], [120000, "120,000"]];
  for (const [value, text] of texts) assert.equal(numberText(value), text);
});

test("counts and words", () => {
  assert.equal(countText(1, "job"), "1 job");
  assert.equal(countText(2000, "job"), "2,000 jobs");
  assert.equal(wordsText("gpu_out_of_memory"), "gpu out of memory");
  assert.equal(wordsText(null), "");
});
