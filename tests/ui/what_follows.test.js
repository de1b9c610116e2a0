import assert from "node:assert/strict";
import { test } from "node:test";
import { lastError } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/log_error.js";
import { resourceRows } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/resource_rows.js";
import { afterCancel, whatIsCleared } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/job/what_follows.js";

test("what the task does when its job is cancelled", () => {
  assert.match(afterCancel({ state: "deferred", try_number: 1, max_tries: 2 }), /tries it again \(this is try 1 of 3\)/);
  assert.match(afterCancel({ state: "running", try_number: 3, max_tries: 2 }), /has no retries left/);
  assert.match(afterCancel({ state: "success", try_number: 1, max_tries: 0 }), /^The task is success and stays so/);
  assert.match(afterCancel(null), /fails/);
});

test("which tasks are cleared", () => {
  const tasks = Array.from({ length: 10 }, (_, index) => ({ task_id: "t", map_index: index, state: null }));
  const { sentence, names, isRunning } = whatIsCleared({ task_instances: tasks });
  assert.match(sentence, /^Airflow clears 10 tasks/);
  assert.deepEqual(names.slice(7), ["t [7]", "and 2 more"]);
  assert.equal(isRunning, false);
  assert.equal(whatIsCleared({ task_instances: [{ task_id: "t", map_index: -1, state: "deferred" }] }).isRunning, true);
});

test("the error with which a task has ended", () => {
  const raised = { level: "error", event: "Task failed with exception", error_detail: [{ exc_type: "NotEnoughGpusError", exc_value: "99 GPUs" }] };
  assert.equal(lastError([{ level: "error", event: "before" }, raised, { level: "info", event: "after" }]), "NotEnoughGpusError: 99 GPUs");
  assert.equal(lastError([{ level: "error", event: "only words" }, "text", null, 7]), "only words");
  assert.equal(lastError([{ error_detail: [{ exc_type: "E", exc_value: "x".repeat(5000) }] }]).length, 601);
  assert.equal(lastError([]), "");
});

test("what was asked for beside what was used", () => {
  const asked = { gpus: 2, nodes: 1, cpus: 4, memory_bytes: 8 * 2 ** 30, time_limit_s: 7200, priority: "normal" };
  const used = { gpu_mean_percent: 31.2, gpu_peak_percent: 60, cpus_mean: 0.002, cpus: 4, peak_memory_bytes: 2 ** 30, run_s: 50.4, energy_j: 45360 };
  const rows = Object.fromEntries(resourceRows({ asked, used }).map((row) => [row.name, [row.asked, row.used]]));
  assert.deepEqual(rows, {
    GPUs: ["2", "31 % in the mean, 60 % at most"],
    Processors: ["4", "0 of 4 busy in the mean"],
    "Host memory": ["8 GiB", "1 GiB at most"],
    Time: ["2 h 00 min", "50 s"],
    Energy: ["", "12.6 Wh"],
    Priority: ["normal", ""],
  });
  assert.deepEqual(resourceRows({ asked: {}, used: { why_not: "no driver" } }), [{ name: "GPUs", asked: "", used: "not measured: no driver" }]);
});
