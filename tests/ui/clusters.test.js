import assert from "node:assert/strict";
import { test } from "node:test";
import { fullHeightText, hourBars, hoursText } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/clusters/hour_bars.js";
import { gpuText, jobTab, jobText, kindsText, lookOf, nodesIn, nodeText, stateOf, summaryText, usualNodes } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/clusters/gpu_text.js";
import { merged } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/clusters/merged.js";
import { squares } from "../../provider/airflow_provider_gpu_cluster/plugins/ui/clusters/squares.js";

const TASK = { job_id: "j", dag_id: "a/b", run_id: "manual__1+2", task_id: "t", map_index: 3, element: 0 };

test("the head of the page says how many GPUs are free, who waits, and who does not answer", () => {
  const counts = (gpus, free, jobs = 0, waiting = 0) => ({ gpus, free, waiting_jobs: jobs, waiting_gpus: waiting });
  const up = { is_up: true, counts: counts(8, 3) };
  assert.equal(summaryText([up, { is_up: true, counts: counts(16, 4, 2, 5) }]), "7 of 24 GPUs free on 2 clusters; 2 jobs wait for 5 GPUs");
  assert.equal(summaryText([{ is_up: true, counts: counts(1, 1, 1, 1) }]), "1 of 1 GPU free on 1 cluster; 1 job waits for 1 GPU");
  // What was known of one that is silent now is not counted.
  assert.equal(summaryText([up, { is_up: false, counts: counts(8, 8) }, { is_up: null, counts: null }]),
    "3 of 8 GPUs free on 1 cluster; 1 cluster does not answer; 1 cluster is being asked");
  assert.equal(summaryText([]), "");
});

test("a GPU says in words what its cell shows", () => {
  const jobs = [{ task: { ...TASK, map_index: -1, element: null }, user: "ada" }, { task: null, user: null, scheduler_id: "77" }];
  assert.equal(gpuText({ state: "leased", type: "H200", index: 0, job: 0, percent: 90.6, used_mb: 512, memory_mb: 2048 }, jobs),
    "GPU 0, H200: leased, by a/b.t of ada, 91 % busy, memory 512 MiB of 2 GiB");
  assert.equal(gpuText({ state: "leased", type: "a100", job: 1 }, jobs), "GPU, a100: leased, by job 77");
  assert.equal(gpuText({ state: "other", type: "x", index: 2, used_by: "process 7 (python)" }, jobs), "GPU 2, x: in use without a lease, by process 7 (python)");
  assert.equal(gpuText({ state: "free", type: "x", index: 1 }, jobs), "GPU 1, x: free");
  for (const busy of [{ percent: 60 }, { used_mb: 18000, memory_mb: 80000 }])
    assert.match(gpuText({ state: "free", type: "x", index: 1, ...busy }, jobs), /^GPU 1, x: free, but busy with something that has no lease/);
  assert.equal(lookOf({ state: "free", percent: 2, used_mb: 476 }).word, "Free");
  assert.equal(jobText({ task: TASK }), "a/b.t[3] element 0");
  assert.equal(jobText({ task: null }), "another job");
  assert.equal(stateOf("reserved").word, "reserved");
});

test("a job's link leads to its tab, whatever its names are", () => {
  assert.equal(jobTab(TASK), "/dags/a%2Fb/runs/manual__1%2B2/tasks/t/mapped/3/plugin/gpu-job?element=0");
  assert.equal(jobTab({ ...TASK, map_index: -1, element: null }), "/dags/a%2Fb/runs/manual__1%2B2/tasks/t/plugin/gpu-job");
});

test("nodes are those of a partition, and say why they take no jobs", () => {
  const free = { name: "n1", is_up: true, partitions: ["gpu"], gpus: [{ state: "free" }, { state: "leased" }] };
  const down = { name: "n2", is_up: false, state: "drained", reason: "fans", partitions: ["gpu", "all"], gpus: [{ state: "down" }] };
  assert.deepEqual(nodesIn([free, down], "all", false), [down]);
  assert.deepEqual(nodesIn([free, down], "", true), [free]);
  assert.equal(nodeText(free), "n1: 1 of 2 GPUs free");
  assert.equal(nodeText(down), "n2: 0 of 1 GPU free, drained (fans)");
});

test("several kinds of GPUs are counted each, where the connection's jobs go", () => {
  const gpus = (type, ...states) => states.map((state) => ({ type, state }));
  const nodes = [
    { partitions: ["gpu"], gpus: [...gpus("A100", "free", "leased"), ...gpus("T4", "free")] },
    { partitions: ["old"], gpus: gpus("T4", "free", "down") },
  ];
  assert.equal(kindsText(nodes), "A100: 1 of 2 free; T4: 2 of 3 free");
  assert.equal(kindsText(nodes.slice(1)), "");
  const partitions = [{ name: "gpu", is_default: true }, { name: "old", is_default: false }];
  assert.deepEqual(usualNodes({ nodes, partitions }), nodes.slice(0, 1));
  assert.deepEqual(usualNodes({ nodes, partitions: [] }), nodes);
});

test("squares are few paths, however many GPUs there are", () => {
  const { width, shapes } = squares([{ state: "free" }, { state: "leased" }, { state: "free" }, { state: "down" }, { state: "other" }]);
  assert.equal(width, 70);
  assert.deepEqual(shapes.map(({ state, filled }) => [state, filled !== ""]), [["free", false], ["leased", true], ["down", false], ["other", true]]);
  assert.equal(shapes[0].outline, "M1 1h11v11h-11zM29 1h11v11h-11z");
  assert.deepEqual(squares([]), { width: 0, height: 13, shapes: [] });
});

test("bars of hours reach the top when all GPUs were leased", () => {
  const hour = (leased, measured = 0, used = 0) => ({ begins_at: "x", gpu_hours: leased, measured_gpu_hours: measured, used_gpu_hours: used });
  const bars = hourBars([hour(4, 4, 1), hour(2), hour(0)], 4, { width: 30, height: 40 });
  assert.deepEqual(bars.map(({ x, y, height, busyHeight }) => [x, y, height, busyHeight]), [[0, 0, 40, 10], [10, 20, 20, 0], [20, 40, 0, 0]]);
  assert.deepEqual(hourBars([], 4, { width: 30, height: 40 }), []);
  assert.equal(hoursText([hour(4, 4, 1), hour(2)]), "6 GPU-hours leased by jobs of this connection in the last 2 hours; the GPUs computed for 25 % of the time that was measured");
  assert.equal(hoursText([hour(0)]), "No job of this connection had a GPU in the last 1 hours");
});

test("an API server that has looked earlier takes nothing back of what another has told", () => {
  const at = (second) => `2026-01-02T03:04:${second}Z`;
  const up = (second, tested) => ({ is_up: true, as_of: at(second), down_since: null, findings: tested ? { at: at(tested) } : null });
  const down = (second) => ({ is_up: false, as_of: at("01"), down_since: at(second), findings: null });
  assert.deepEqual(merged(null, up("10")), up("10"));
  assert.deepEqual(merged(up("10", "05"), up("20", "02")), up("20", "05"));
  assert.deepEqual(merged(up("20"), up("10", "05")), up("20", "05"));
  assert.deepEqual(merged(up("20"), down("30")), down("30"));
  assert.deepEqual(merged(down("30"), down("33")), down("30"));
  assert.deepEqual(merged(down("30"), up("40")), up("40"));
});

test("little use and few GPUs are told in words that fit", () => {
  assert.deepEqual([4, 1, 0].map(fullHeightText), ["full height: all 4 GPUs", "full height: the GPU", ""]);
  assert.equal(hoursText([{ gpu_hours: 0.002, measured_gpu_hours: 0, used_gpu_hours: 0 }]), "Less than 0.01 GPU-hours leased by jobs of this connection in the last 1 hours");
});
