// What a job has asked for beside what it has used, as rows of text. No React.

import { bytesText, numberText } from "../parts/number_text.js";
import { durationText } from "../parts/time_text.js";

const NAMES = { gpu_type: "GPU type", nodes: "Nodes", priority: "Priority", partition: "Partition", account: "Account", qos: "QOS", constraint: "Constraint" };

/** @param {{asked: object, used: object}} resources
 *  @returns {{name: string, asked: string, used: string}[]} */
export function resourceRows({ asked, used }) {
  const has = (value) => value !== undefined && value !== null;
  const both = [
    ["GPUs", has(asked.gpus) ? `${asked.gpus}${asked.nodes > 1 ? ` on each of ${asked.nodes} nodes` : ""}` : "", gpuUse(used)],
    ["GPU memory", "", gpuMemory(used)],
    ["Processors", has(asked.cpus) ? String(asked.cpus) : "", has(used.cpus_mean) ? `${numberText(Number(used.cpus_mean.toFixed(1)))}${used.cpus ? ` of ${used.cpus}` : ""} busy in the mean` : ""],
    ["Host memory", bytesText(asked.memory_bytes ?? used.memory_limit_bytes), most(used.peak_memory_bytes)],
    ["Time", durationText(asked.time_limit_s), durationText(used.run_s)],
    ["GPU time", "", gpuTime(used)],
    ["Energy", "", energy(used.energy_j)],
    ["Written", "", bytesText(used.written_bytes)],
  ];
  const rows = both.map(([name, one, other]) => ({ name, asked: one, used: other })).filter((row) => row.asked || row.used);
  for (const [key, name] of Object.entries(NAMES)) {
    if (has(asked[key]) && !(key === "nodes" && asked[key] <= 1)) rows.push({ name, asked: String(asked[key]), used: "" });
  }
  return rows;
}

const most = (bytes) => (bytes ? `${bytesText(bytes)} at most` : "");

function gpuMemory(used) {
  const peak = bytesText(used.gpu_peak_memory_bytes);
  return peak && used.gpu_memory_bytes ? `${peak} of ${bytesText(used.gpu_memory_bytes)} at most` : most(used.gpu_peak_memory_bytes);
}

function energy(joules) {
  const hours = joules / 3600;
  if (!(hours >= 0.1)) return "";
  return hours < 1000 ? `${Number(hours.toPrecision(3))} Wh` : `${Number((hours / 1000).toPrecision(3))} kWh`;
}

function gpuUse(used) {
  if (typeof used.gpu_mean_percent !== "number") return used.why_not ? `not measured: ${used.why_not}` : "";
  const peak = typeof used.gpu_peak_percent === "number" ? `, ${used.gpu_peak_percent.toFixed(0)} % at most` : "";
  return `${used.gpu_mean_percent.toFixed(0)} % in the mean${peak}`;
}

function gpuTime(used) {
  if (typeof used.gpu_seconds !== "number") return "";
  const idle = used.gpu_seconds_idle > 0 ? `, of which idle ${durationText(used.gpu_seconds_idle)}` : "";
  return `${durationText(used.gpu_seconds)} leased${idle}`;
}
