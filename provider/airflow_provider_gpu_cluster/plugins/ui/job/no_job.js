// A task without a job: why there is none.

import { Chakra, html, React } from "../airflow.js";
import { Notice } from "../parts/notice.js";
import { logOf, taskOf } from "./airflow_task.js";
import { lastError } from "./log_error.js";

/** @param {{address: object, error: {status: number, message: string, looksAgain: boolean}}} props */
export function NoJob({ address, error }) {
  const [cause, setCause] = React.useState("");
  React.useEffect(() => {
    let isHere = true;
    setCause("");
    if (error.status !== 404 || error.looksAgain) return undefined;
    errorOf(address).then(
      (text) => isHere && setCause(text),
      () => {}, // Who may not read the log, or has none, reads what is known without it.
    );
    return () => {
      isHere = false;
    };
  }, [address, error.status, error.message]);
  return html`<${Chakra.Box} p=${2}>
    <${Notice} status=${cause ? "error" : error.looksAgain || error.status === 404 ? "info" : "warning"} title=${error.message}>
      ${cause && html`<${Chakra.Text} whiteSpace="pre-wrap">${cause}<//>`}
    <//>
  <//>`;
}

async function errorOf(address) {
  const task = await taskOf(address);
  if (task.state !== "failed") return "";
  return lastError(await logOf(address, task.try_number));
}
