// What a GPU, a node and all clusters are called in words. No React.

import { bytesText, countText } from "../parts/number_text.js";

/** Of each state: the word for it, and Airflow's palette. */
export const STATES = {
  free: { word: "Free", palette: "success" },
  leased: { word: "Leased", palette: "running" },
  other: { word: "In use without a lease", palette: "warning" },
  down: { word: "Down", palette: "failed" },
};

/** Word and palette of a state; of one that this page does not know, the state itself. */
export const stateOf = (state) => STATES[state] ?? { word: String(state), palette: "gray" };

/** From here on a GPU without a lease is busy: the driver of an idle one has less memory for itself. */
const BUSY_PERCENT = 10;
const BUSY_MB = 1024;

/** Word and palette of a GPU. One that a job would get may be in use by something that nobody has seen. */
export function lookOf(gpu) {
  const isBusy = gpu.state === "free" && (gpu.percent >= BUSY_PERCENT || gpu.used_mb > BUSY_MB);
  return isBusy ? { word: "Free, but busy", palette: "warning", note: "with something that has no lease" } : stateOf(gpu.state);
}

/** "700 MiB of 1000 MiB"; "" if it is not known. */
export function memoryText({ used_mb: used, memory_mb: whole }) {
  const text = (mb) => bytesText(mb * 1024 * 1024);
  if (used === null || used === undefined) return whole ? text(whole) : "";
  return whole ? `${text(used)} of ${text(whole)}` : text(used);
}

/** "91 %"; "" if it is not known. */
export const percentText = (percent) => (typeof percent === "number" ? `${Math.round(percent)} %` : "");

/** What a job is called: its task, or what may be told instead. */
export function jobText(job) {
  if (!job) return "a job";
  if (job.task) {
    const { dag_id: dag, task_id: task, map_index: index, element } = job.task;
    const part = index >= 0 ? `[${index}]` : "";
    return `${dag}.${task}${part}${element === null || element === undefined ? "" : ` element ${element}`}`;
  }
  return job.scheduler_id ? `job ${job.scheduler_id}` : "another job";
}

/** All about one GPU in a sentence, for who cannot see it. */
export function gpuText(gpu, jobs) {
  const parts = [`${gpu.index === null || gpu.index === undefined ? "GPU" : `GPU ${gpu.index}`}, ${gpu.type}: ${[lookOf(gpu).word.toLowerCase(), lookOf(gpu).note].filter(Boolean).join(" ")}`];
  if (gpu.state === "leased" && gpu.job !== null && gpu.job !== undefined) {
    const job = jobs[gpu.job];
    parts.push(`by ${jobText(job)}${job?.user ? ` of ${job.user}` : ""}`);
  }
  if (gpu.used_by) parts.push(`by ${gpu.used_by}`);
  if (percentText(gpu.percent)) parts.push(`${percentText(gpu.percent)} busy`);
  if (memoryText(gpu)) parts.push(`memory ${memoryText(gpu)}`);
  return parts.join(", ");
}

/** How many GPUs of a node are free, and whether it takes jobs. */
export function nodeText(node) {
  const free = node.gpus.filter((gpu) => gpu.state === "free").length;
  const state = node.is_up ? "" : `, ${node.state || "down"}${node.reason ? ` (${node.reason})` : ""}`;
  return `${node.name ?? "a node"}: ${free} of ${countText(node.gpus.length, "GPU")} free${state}`;
}

/** How many GPUs of each kind are free, such as "A100: 2 of 8 free; T4: 1 of 4 free"; "" where all are of one kind. */
export function kindsText(nodes) {
  const kinds = new Map();
  for (const { type, state } of nodes.flatMap((node) => node.gpus)) {
    const [free, all] = kinds.get(type) ?? [0, 0];
    kinds.set(type, [free + (state === "free"), all + 1]);
  }
  return kinds.size > 1 ? [...kinds].map(([type, [free, all]]) => `${type}: ${free} of ${all} free`).join("; ") : "";
}

/** The nodes that jobs go to that name no partition: those of the connection's, or all. */
export function usualNodes({ nodes, partitions }) {
  const usual = partitions.filter((one) => one.is_default).map((one) => one.name);
  return usual.length ? nodes.filter((node) => node.partitions.some((name) => usual.includes(name))) : nodes;
}

/** The sentence at the head of the page. @param {{is_up: boolean | null, counts: any}[]} clusters */
export function summaryText(clusters) {
  const known = clusters.filter(({ is_up: isUp, counts }) => isUp && counts);
  const sum = (name) => known.reduce((total, { counts }) => total + counts[name], 0);
  const silent = clusters.filter(({ is_up: isUp }) => isUp === false).length;
  const unknown = clusters.filter(({ is_up: isUp }) => isUp === null).length;
  const parts = [];
  if (known.length) parts.push(`${sum("free")} of ${countText(sum("gpus"), "GPU")} free on ${countText(known.length, "cluster")}`);
  if (sum("waiting_jobs")) parts.push(`${countText(sum("waiting_jobs"), "job")} ${sum("waiting_jobs") === 1 ? "waits" : "wait"} for ${countText(sum("waiting_gpus"), "GPU")}`);
  if (silent) parts.push(`${countText(silent, "cluster")} ${silent === 1 ? "does" : "do"} not answer`);
  if (unknown) parts.push(`${countText(unknown, "cluster")} ${unknown === 1 ? "is" : "are"} being asked`);
  return parts.join("; ");
}

/** The nodes of a partition, or all; only those with a free GPU, if wanted. */
export const nodesIn = (nodes, partition, isFreeOnly) =>
  nodes.filter((node) => (!partition || node.partitions.includes(partition)) && (!isFreeOnly || node.gpus.some((gpu) => gpu.state === "free")));

/** Path of the tab that shows the job of a task instance. */
export function jobTab({ dag_id: dag, run_id: run, task_id: task, map_index: index, element }) {
  const [dagPart, runPart, taskPart] = [dag, run, task].map(encodeURIComponent);
  const mapped = index >= 0 ? `/mapped/${index}` : "";
  const query = element === null || element === undefined ? "" : `?element=${element}`;
  return `/dags/${dagPart}/runs/${runPart}/tasks/${taskPart}${mapped}/plugin/gpu-job${query}`;
}
