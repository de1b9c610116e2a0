// Keeps the page of a GPU job up to date until the job has ended. Everything is put in as text, never as markup.
"use strict";

const REFRESH_S = 5;
const MISSES_IN_SILENCE = 3;
const byId = (id) => document.getElementById(id);
let misses = 0;

function element(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function showText(id, text) {
  byId(id).textContent = text || "";
  byId(id).hidden = !text;
}

function showProgress(progress) {
  byId("progress").hidden = !progress;
  if (!progress) return;
  const bar = byId("progress").querySelector("progress");
  bar.hidden = progress.total === null;
  if (!bar.hidden) {
    bar.max = progress.total;
    bar.value = progress.step;
  }
  const items = progress.values.map(([name, text]) => element("li", element("span", name), " ", text));
  if (progress.label) items.unshift(element("li", progress.label));
  byId("progress").querySelector("ul").replaceChildren(...items);
}

function showElements(elements) {
  byId("elements").hidden = !elements.length;
  const address = new URLSearchParams(location.search);
  const items = elements.map(([state, text], index) => {
    const link = element("a", String(index));
    address.set("element", index);
    link.href = `job?${address}`;
    link.title = text;
    link.dataset.state = state;
    return element("li", link);
  });
  byId("elements").querySelector("ol").replaceChildren(...items);
}

function showRows(id, rows) {
  byId(id).hidden = !rows.length;
  const lines = rows.map((row) => element("tr", ...row.map((text) => element("td", text))));
  byId(id).querySelector("tbody").replaceChildren(...lines);
}

function showAdvice(sentences) {
  byId("advice").hidden = !sentences.length;
  byId("advice").querySelector("ul").replaceChildren(...sentences.map((text) => element("li", text)));
}

function showLog(text) {
  byId("log").hidden = !text;
  const pre = byId("log").querySelector("pre");
  const atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 30;
  if (pre.textContent !== text) pre.textContent = text;
  if (atEnd) pre.scrollTop = pre.scrollHeight;
}

function show(job) {
  showText("error", job.error);
  if (!job.asked && !job.error) return; // no news yet: what was known stays
  byId("state").textContent = byId("state").dataset.state = job.state;
  document.querySelector("h1").textContent = job.job_id; // a cleared task has a new job
  document.title = `${job.state} · ${job.job_id}`;
  showText("headline", job.headline);
  showText("remedy", job.remedy);
  showText("idle", job.idle);
  if (!job.asked) return; // cannot be reached: what was last known stays
  byId("checked").textContent = `as of ${job.checked_at}`;
  showProgress(job.progress);
  showElements(job.elements);
  showRows("attempts", job.attempts);
  showAdvice(job.advice);
  showRows("acts", job.acts);
  byId("facts").replaceChildren(
    ...job.facts.map(([label, text]) => element("div", element("dt", label), element("dd", text))),
  );
  showLog(job.log_tail);
}

async function refresh() {
  const response = await fetch(`job.json${location.search}`, { credentials: "same-origin" });
  const job = await response.json();
  if (!response.ok) {
    // Between two tries of a task, and two looks of a sensor, its XCom is gone for a moment.
    const isOver = response.status === 404 && job.looks_again === false;
    if (response.status !== 404 || isOver || ++misses > MISSES_IN_SILENCE) showText("error", job.detail);
    return response.status !== 401 && response.status !== 403 && !isOver;
  }
  misses = 0;
  show(job);
  return !job.final;
}

async function keepUpToDate() {
  let more = true;
  while (more) {
    byId("refresh").textContent = `refreshes every ${REFRESH_S} s`;
    if (!document.hidden) {
      try {
        more = await refresh();
      } catch (error) {
        showText("error", "Airflow did not answer; the page goes on trying.");
      }
    }
    if (more) await new Promise((resolve) => setTimeout(resolve, REFRESH_S * 1000));
  }
  byId("refresh").textContent = "";
}

// Light or dark as it was chosen in Airflow's own pages; otherwise as the browser is set.
const theme = localStorage.getItem("theme");
if (theme === "light" || theme === "dark") document.documentElement.style.colorScheme = theme;

const log = byId("log").querySelector("pre");
log.scrollTop = log.scrollHeight;
if (byId("job").dataset.final !== "true") keepUpToDate();
