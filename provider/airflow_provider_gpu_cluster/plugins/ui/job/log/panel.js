// The log of a job: any part of it, live, with a search.

import { Chakra, html, React } from "../../airflow.js";
import { apiAddress, jobPath } from "../../api.js";
import { Busy, Empty, Notice, Spoken } from "../../parts/notice.js";
import { bytesText } from "../../parts/number_text.js";
import { plainText } from "./ansi.js";
import { connOf } from "./attempt_place.js";
import { Block, ROWS_CSS } from "./rows.js";
import { SearchBar } from "./search_bar.js";
import { Toolbar } from "./toolbar.js";
import { useLog } from "./use_log.js";
import { useSearch } from "./use_search.js";
import { endOf, rowAt, startOf } from "./windows.js";

const NEAR_PX = 600;
const SPEAK_MS = 15_000;
const NO_QUERY = { q: "", isRegex: false, ignoreCase: true };

/** @param {{address: object, job: object, live: object}} props */
export function LogPanel({ address, job, live }) {
  if (job.array && (address.element ?? null) === null) {
    return html`<${Empty}>This is an array: each of its elements has a log of its own. Choose one of the elements.<//>`;
  }
  if (job.may?.read_log === false) return html`<${Empty}>To see what a job has printed takes the right to read the logs of its DAG.<//>`;
  return html`<${LogOf} key=${job.job_id} address=${address} job=${job} live=${live} />`;
}

function LogOf({ address, job, live }) {
  const linked = React.useMemo(() => placeIn(location.hash), []);
  const [attempt, setAttempt] = React.useState(linked?.attempt ?? null);
  const [stream, setStream] = React.useState(linked?.stream ?? "output");
  const [follows, setFollows] = React.useState(linked === null);
  const [wraps, setWraps] = React.useState(false);
  const [query, setQuery] = React.useState(NO_QUERY);
  const [chosen, setChosen] = React.useState(linked?.place ?? null);
  const [said, setSaid] = React.useState("");
  const connId = connOf(job, attempt);
  const at = React.useMemo(() => (connId === job.conn_id ? address : { ...address, connId }), [address, connId, job.conn_id]);
  const log = useLog({ address: at, live, attempt, stream, follows });
  const { held } = log;
  const search = useSearch({ address: at, attempt, stream, query, stop: held?.stop ?? 0 });
  const view = React.useRef(null);
  const searchField = React.useRef(null);
  const scroll = useScroll(view, { held, follows, wraps });

  // The end first, or the line that the address names.
  React.useEffect(() => {
    log.open(chosen === null ? { way: "before" } : { place: chosen, way: "around" }).then(() => chosen !== null && scroll.to(chosen));
  }, [at, attempt, stream]);
  useSpoken(log.unseen, follows, held, setSaid);

  const hrefOf = React.useCallback((place) => `${location.pathname}${location.search}#${linkOf(place, attempt, stream)}`, [attempt, stream]);
  const found = React.useMemo(() => (search.found ? new Set(search.found.hits) : null), [search.found?.hits]);

  async function goTo(place) {
    setFollows(false);
    setChosen(place);
    if (!held || place < startOf(held) || place >= endOf(held)) await log.open({ place, way: "around" });
    scroll.to(place);
  }
  async function toStart() {
    setFollows(false);
    await log.open({ place: held?.start ?? 0, way: "after" });
    scroll.toStart();
  }
  async function toEnd() {
    setFollows(true);
    log.seen();
    if (!held?.atEnd) await log.open({ way: "before" });
    scroll.toEnd();
  }
  async function toHit(way) {
    const from = chosen ?? (way === "after" ? (scroll.firstSeen() ?? 0) - 1 : (held?.stop ?? 0));
    const row = held && chosen !== null ? rowAt(held, chosen) : null;
    let line = await search.go(way, from, row ? row.offset + row.size : from + 1);
    const isAround = line === null;
    if (isAround) line = await search.go(way, way === "after" ? -1 : (held?.stop ?? 0), 0);
    if (line !== null) await goTo(line);
    setSaid(line === null ? "" : isAround ? `The search went on from the ${way === "after" ? "start" : "end"} of the log.` : "");
  }
  function wrap() {
    scroll.keep(chosen);
    setWraps(!wraps);
  }
  function onScroll() {
    if (!held) return;
    const { scrollTop, scrollHeight, clientHeight } = view.current;
    const isBelow = scrollHeight - scrollTop - clientHeight < 4;
    if (isBelow && held.atEnd && !follows) {
      setFollows(true);
      log.seen();
    } else if (!isBelow && follows && scroll.isByReader()) setFollows(false);
    fill();
  }
  /** Get more where the reader comes near the end of what is held. */
  function fill() {
    if (!held?.blocks.length || log.isBusy || log.error || scroll.isMoving()) return;
    const { scrollTop, scrollHeight, clientHeight } = view.current;
    if (scrollTop < NEAR_PX && startOf(held) > held.start && !follows) log.before();
    else if (scrollHeight - scrollTop - clientHeight < NEAR_PX && !held.atEnd) log.after();
  }
  React.useEffect(fill, [held, log.isBusy, follows]);
  function onKeyDown(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      Home: toStart, End: toEnd, f: () => (follows ? setFollows(false) : toEnd()), w: wrap,
      "/": () => searchField.current?.focus(), n: () => query.q && toHit("after"), N: () => query.q && toHit("before"),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
  function onClick(event) {
    const line = event.target.closest?.(".place")?.closest("[data-offset]");
    if (!line || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    choose(Number(line.dataset.offset));
  }
  /** Let the address of the page lead to a line. */
  function choose(place) {
    setChosen(place);
    history.replaceState(history.state, "", hrefOf(place));
  }
  async function copyLink() {
    const place = chosen ?? scroll.firstSeen();
    if (place === null) return;
    choose(place);
    setSaid((await copied(location.href)) ? "The link to this line is copied." : "The address of this page is now the link to this line.");
  }
  async function copyLines() {
    const text = held.blocks.flatMap(({ rows }) => rows.map((row) => plainText(row.text) + (row.isEnd ? "\n" : ""))).join("");
    setSaid((await copied(text)) ? `The lines that are loaded here are copied, ${bytesText(text.length)}.` : "The browser does not allow to copy.");
  }

  const problem = log.error || held?.problem;
  return html`<${Chakra.Box} as="section" aria-label="Log" minW=${0}>
    <${Toolbar} job=${job} held=${held} attempt=${attempt} stream=${stream} follows=${follows} wraps=${wraps} place=${scroll.seenPlace}
      onAttempt=${(value) => (setChosen(null), setFollows(true), setAttempt(value))} onStream=${(value) => (setChosen(null), setFollows(true), setStream(value))}
      onWrap=${wrap} onFollow=${() => (follows ? setFollows(false) : toEnd())} onStart=${toStart} onEnd=${toEnd}
      onPlace=${(place) => goTo(place)} onCopy=${copyLines} onLink=${copyLink}
      downloadHref=${apiAddress(jobPath(at, "log/download", { attempt, stream: stream === "output" ? null : stream }))} />
    <${SearchBar} field=${searchField} query=${query} search=${search} onQuery=${setQuery} onGo=${toHit} />
    ${problem && html`<${Notice} status="warning">${problem}<//>`}
    <${Chakra.Box} position="relative">
      <${Chakra.Box} ref=${view} role="log" aria-live="off" aria-label=${`Log of ${job.job_id}`} aria-busy=${held === null && !problem} tabIndex=${0} onScroll=${onScroll} onKeyDown=${onKeyDown} onClick=${onClick}
          bg="bg.subtle" borderWidth="1px" borderRadius="md" height="60vh" minH="12rem" overflow="auto" overflowAnchor="none" fontFamily="mono" fontSize="xs" lineHeight="1.5"
          py=${1} whiteSpace=${wraps ? "pre-wrap" : "pre"} overflowWrap=${wraps ? "anywhere" : "normal"} css=${ROWS_CSS}>
        ${held === null && !problem && html`<${Busy} label="The log is asked for." />`}
        ${held && !held.blocks.length && html`<${Chakra.Text} color="fg.muted" fontFamily="body" px=${3}>${held.grows ? "Nothing is printed yet." : "Nothing was printed."}<//>`}
        ${held && html`<div style=${{ width: wraps ? "100%" : "max-content", minWidth: "100%" }}>
          ${held.blocks.map((block) => html`<${Block} key=${block.offset} block=${block} query=${query.q && !query.isRegex ? query : null} found=${found} chosen=${chosen} hrefOf=${hrefOf} />`)}
        </div>`}
      <//>
      ${!follows && held && (log.unseen > 0 || (held.grows && !held.atEnd)) && html`<${Chakra.Button} size="xs" position="absolute" bottom=${3} right=${6} onClick=${toEnd} colorPalette="brand">
        ${log.unseen ? `${log.unseen.toLocaleString("en-US")} new ${log.unseen === 1 ? "line" : "lines"}` : "To the end"} \u2193<//>`}
    <//>
    <${Spoken}>${said}<//>
  <//>`;
}

/** Keeps the reader's place when rows come and go above, and the end in sight when he follows. */
function useScroll(view, { held, follows, wraps }) {
  const anchor = React.useRef(null);
  const top = React.useRef(0);
  const wanted = React.useRef(null);
  const [seenPlace, setSeenPlace] = React.useState(null);
  const rowOf = (place) => view.current?.querySelector(`[data-offset="${place}"]`);

  function firstVisible() {
    const box = view.current?.getBoundingClientRect();
    if (!box) return null;
    for (const block of view.current.querySelectorAll(".block")) {
      if (block.getBoundingClientRect().bottom <= box.top) continue;
      for (const row of block.children) if (row.getBoundingClientRect().bottom > box.top) return row;
    }
    return null;
  }
  const note = () => {
    const row = firstVisible();
    anchor.current = row && { place: row.dataset.offset, top: row.getBoundingClientRect().top - view.current.getBoundingClientRect().top };
    if (row) setSeenPlace(Number(row.dataset.offset));
  };
  React.useEffect(() => {
    const box = view.current;
    if (!box) return undefined;
    let frame = 0;
    const look = () => {
      frame = 0;
      note();
    };
    const onScroll = () => (frame ||= requestAnimationFrame(look));
    box.addEventListener("scroll", onScroll);
    return () => {
      cancelAnimationFrame(frame);
      box.removeEventListener("scroll", onScroll);
    };
  }, []);
  const bring = (row) => {
    const [box, line] = [view.current.getBoundingClientRect(), row.getBoundingClientRect()];
    view.current.scrollTop += line.top - box.top - (box.height - Math.min(line.height, box.height)) / 2;
  };
  const isSeen = (row) => {
    const [box, line] = [view.current.getBoundingClientRect(), row.getBoundingClientRect()];
    return line.bottom > box.top && line.top < box.bottom;
  };
  React.useLayoutEffect(() => {
    const box = view.current;
    if (!box || !held) return;
    if (wanted.current !== null) {
      const row = rowOf(wanted.current) ?? rowOf(rowAt(held, wanted.current)?.offset);
      if (row) {
        bring(row);
        wanted.current = null;
      }
    } else if (follows) box.scrollTop = box.scrollHeight;
    else if (anchor.current) {
      const row = rowOf(anchor.current.place);
      if (row) box.scrollTop += row.getBoundingClientRect().top - box.getBoundingClientRect().top - anchor.current.top;
    }
    top.current = box.scrollTop;
    // Other lines may be there now, without any scrolling.
    note();
  }, [held, follows, wraps]);
  return {
    seenPlace,
    firstSeen: () => (firstVisible() ? Number(firstVisible().dataset.offset) : null),
    isByReader: () => Math.abs(view.current.scrollTop - top.current) > 4,
    to: (place) => {
      const row = rowOf(place);
      if (row) bring(row);
      else wanted.current = place;
    },
    isMoving: () => wanted.current !== null,
    /** Keep a line in sight, if it is, when all rows get other heights. */
    keep: (place) => {
      const row = place === null ? null : rowOf(place);
      if (row && isSeen(row)) wanted.current = place;
    },
    toStart: () => view.current && (view.current.scrollTop = 0),
    toEnd: () => {
      view.current.scrollTop = view.current.scrollHeight;
      top.current = view.current.scrollTop;
    },
  };
}

/** Says seldom that there are new lines: a log that runs fast would speak for ever. */
function useSpoken(unseen, follows, held, say) {
  const last = React.useRef({ at: 0, end: null });
  React.useEffect(() => {
    if (!held || !held.grows) return;
    const now = performance.now();
    const end = endOf(held);
    if (last.current.end === null) last.current = { at: now, end };
    if (now - last.current.at < SPEAK_MS || end === last.current.end) return;
    last.current = { at: now, end };
    say(follows ? "The log goes on." : `${unseen} new lines below.`);
  }, [held, unseen, follows]);
}

/** What names a line in the address of the page. */
const linkOf = (place, attempt, stream) => `log=${place}${attempt ? `&attempt=${attempt}` : ""}${stream === "output" ? "" : `&stream=${stream}`}`;

function placeIn(hash) {
  const named = new URLSearchParams(hash.slice(1));
  const place = Number(named.get("log") ?? NaN);
  if (!Number.isSafeInteger(place) || place < 0) return null;
  const attempt = Number(named.get("attempt"));
  const stream = named.get("stream");
  return { place, attempt: Number.isSafeInteger(attempt) && attempt > 0 ? attempt : null, stream: ["errors", "environment"].includes(stream) ? stream : "output" };
}

/** Copy a text; without HTTPS, browsers know only the old way. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = Object.assign(document.createElement("textarea"), { value: text });
    field.style.position = "fixed";
    field.style.opacity = "0";
    document.body.append(field);
    field.select();
    const isDone = document.execCommand("copy");
    field.remove();
    return isDone;
  }
}
