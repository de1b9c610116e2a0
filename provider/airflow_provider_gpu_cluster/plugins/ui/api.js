// Asks our part of Airflow's API server. A failure is an ApiError with one sentence for a person.

import { address } from "./airflow.js";

const ROOT = "gpu-cluster/api";

export class ApiError extends Error {
  /** @param {number} status of HTTP; 0 when nobody answered
   *  @param {string} sentence for a person
   *  @param {boolean} looksAgain whether the same request may soon be answered otherwise */
  constructor(status, sentence, looksAgain = false) {
    super(sentence);
    this.status = status;
    this.looksAgain = looksAgain;
  }
}

/** Path and query of a job, of which `what` is a part, such as "log". */
export function jobPath({ dagId, runId, taskId, mapIndex = -1, element = null, jobId = null, connId = null }, what = "", query = {}) {
  const [dag, run, task] = [dagId, runId, taskId].map(encodeURIComponent);
  const path = `dags/${dag}/dagRuns/${run}/taskInstances/${task}/job${what && `/${what}`}`;
  return withQuery(path, { map_index: mapIndex, element, job_id: jobId, conn_id: connId, ...query });
}

/** A path with a query, in which null, undefined and "" are left out and lists are repeated. */
export function withQuery(path, query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") search.append(name, one);
  }
  return search.size ? `${path}?${search}` : path;
}

/** Full address of a path below our API, for a link or a download. */
export const apiAddress = (path) => address(`${ROOT}/${path}`);

/** The answer to GET, as JSON. */
export const get = (path, options = {}) => ask(apiAddress(path), options);

/** The answer to POST, as JSON. */
export const post = (path, body = {}) => ask(apiAddress(path), asJson(body));

/** The same of Airflow's own REST API, below `api/v2`. */
export const getAirflow = (path, options = {}) => ask(address(`api/v2/${path}`), options);
export const postAirflow = (path, body = {}) => ask(address(`api/v2/${path}`), asJson(body));

const asJson = (body) => ({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "Airflow does not answer.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw new ApiError(response.status, sentenceOf(answer, response), answer.looks_again === true);
}

const sentenceOf = (answer, response) =>
  typeof answer.detail === "string" ? answer.detail : `Airflow answers ${response.status} ${response.statusText}.`;
