// What a user can do to a job: cancel it, have it save a checkpoint, run it again. Only what he may, and what makes sense now.

import { Chakra, html, React } from "../airflow.js";
import { jobPath, post } from "../api.js";
import { ConfirmButton } from "../parts/confirm.js";
import { countText } from "../parts/number_text.js";
import { Spoken } from "../parts/notice.js";
import { clear, taskOf } from "./airflow_task.js";
import { afterCancel, whatIsCleared } from "./what_follows.js";

// By then a dialog that closes is gone.
const FOCUS_MS = 500;

/** @param {{address: object, job: object, refresh?: () => void}} props */
export function Buttons({ address, job, refresh }) {
  const [told, setTold] = React.useState("");
  const group = React.useRef(null);
  const hasActed = React.useRef(false);
  const done = (sentence) => {
    hasActed.current = true;
    setTold(sentence);
    refresh?.();
  };
  React.useEffect(() => setTold(""), [job.job_id, job.state]);
  React.useEffect(() => {
    if (!hasActed.current) return undefined;
    // The button to which a dialog gives the focus back may be gone with the state that it belonged to.
    const timer = setTimeout(() => document.activeElement === document.body && group.current?.focus(), FOCUS_MS);
    return () => clearTimeout(timer);
  }, [told, job.state]);
  const hasEarlierOne = Boolean(address.jobId || address.connId);
  return html`<${Chakra.Flex} ref=${group} role="group" aria-label="What you can do" tabIndex=${-1} outline="none" gap=${2} wrap="wrap" align="center">
    ${job.may.cancel && !job.is_final && html`<${Cancel} address=${address} job=${job} onDone=${done} />`}
    ${job.may.cancel && job.state === "RUNNING" && !job.array && html`<${Checkpoint} address=${address} job=${job} onDone=${done} />`}
    ${job.may.clear && !hasEarlierOne && html`<${RunAgain} address=${address} job=${job} onDone=${done} />`}
    <${Spoken}>${told}<//>
    ${told && html`<${Chakra.Text} aria-hidden="true" fontSize="sm" color="fg.muted">${told}<//>`}
  <//>`;
}

const whichJob = (job) => (job.array?.parts ? `all ${countText(job.array.size, "element")} of this part of the array` : job.array ? `all ${countText(job.array.size, "element")} of the array` : job.element === null ? "the job" : `element ${job.element} alone`);

function Cancel({ address, job, onDone }) {
  return html`<${ConfirmButton} label="Cancel" title=${`Cancel ${whichJob(job)}?`} confirm="Cancel it" palette="danger"
    prepare=${() => taskOf(address).catch(() => ({}))}
    question=${(task) => html`<${Chakra.Text}>
      ${job.state === "RUNNING" ? "What runs is told to stop, and ended if it does not." : "It will not start."} ${task && afterCancel("state" in task ? task : null)}
    <//>`}
    act=${async () => (await post(jobPath(address, "cancel"))).sentence} onDone=${onDone} />`;
}

function Checkpoint({ address, job, onDone }) {
  // One id for each time that the dialog was opened: a repeated click sends no second signal.
  return html`<${ConfirmButton} label="Save a checkpoint" title="Have the job save a checkpoint?" confirm="Send the signal"
    prepare=${async () => ({ id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` })}
    question="The job's program gets its warning signal, by which it saves its work, and goes on. Nothing is sent to a program that does not catch the signal."
    act=${async (found) => (await post(jobPath(address, "checkpoint"), { id: found.id })).sentence} onDone=${onDone} />`;
}

function RunAgain({ address, job, onDone }) {
  return html`<${ConfirmButton} label="Run again" title="Run the task again?" confirm="Clear and run"
    prepare=${() => clear(address, true)}
    question=${(found) => found && html`<${Cleared} found=${found} isOver=${job.is_final} />`}
    act=${async () => (await clear(address, false), "The task is cleared; Airflow starts it again, with a new job.")} onDone=${onDone} />`;
}

function Cleared({ found, isOver }) {
  const { sentence, names, isRunning } = whatIsCleared(found);
  return html`<${Chakra.Box}>
    <${Chakra.Text}>${sentence}<//>
    <${Chakra.Box} as="ul" listStyleType="disc" ps=${5} my=${2}>${names.map((name) => html`<li key=${name}>${name}</li>`)}<//>
    ${isRunning && html`<${Chakra.Text}>Those that run are stopped first${isOver ? "" : ", and the present job with its task"}.<//>`}
  <//>`;
}
