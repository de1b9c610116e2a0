// The error with which a task has ended, from the events of its log. No React.

const MOST = 600;

/** The last error in words, such as "InvalidJobError: gpus=0 is no number of GPUs"; "" if there is none.
 *  @param {any[]} events of Airflow's structured log; texts where it is not structured */
export function lastError(events) {
  for (const event of [...events].reverse()) {
    if (typeof event !== "object" || event === null) continue;
    const [detail] = Array.isArray(event.error_detail) ? event.error_detail : [];
    if (typeof detail?.exc_type === "string") return cut(`${detail.exc_type}: ${detail.exc_value ?? ""}`);
    if (["error", "critical"].includes(event.level) && typeof event.event === "string") return cut(event.event);
  }
  return "";
}

const cut = (text) => (text.length > MOST ? `${text.slice(0, MOST)}…` : text).replace(/: $/, "");
