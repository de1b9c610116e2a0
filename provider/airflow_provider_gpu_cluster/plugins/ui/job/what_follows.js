// What a task does when something is done to its job, in sentences. No React.

import { countText } from "../parts/number_text.js";

const WAITS = ["running", "deferred", "up_for_reschedule", "restarting"];

/** What the task of a job does when the job is cancelled.
 *  @param {{state: string | null, try_number: number, max_tries: number} | null} task as Airflow's own API tells it */
export function afterCancel(task) {
  if (!task) return "A task that waits for it fails.";
  if (!WAITS.includes(task.state)) {
    return `The task is ${task.state ?? "not started"} and stays so; a task that waits for the job, such as a sensor, fails.`;
  }
  // Airflow retries a task whose number of the try does not exceed this.
  if (task.try_number > task.max_tries) return "The task that waits for it fails, and has no retries left.";
  return (
    `The task that waits for it fails, and Airflow tries it again (this is try ${task.try_number} of ${task.max_tries + 1}), ` +
    "which starts the job again. To end both, mark the task as failed instead."
  );
}

/** Which tasks are cleared, of those that Airflow names in a dry run.
 *  @param {{task_instances: {task_id: string, map_index: number, state: string | null}[]}} found */
export function whatIsCleared(found, most = 8) {
  const names = found.task_instances.map(({ task_id: task, map_index: index }) => (index >= 0 ? `${task} [${index}]` : task));
  const more = names.length - most;
  return {
    sentence: `Airflow clears ${countText(names.length, "task")} of this run, and starts them again:`,
    names: more > 0 ? [...names.slice(0, most), `and ${more} more`] : names,
    isRunning: found.task_instances.some(({ state }) => WAITS.includes(state)),
  };
}
