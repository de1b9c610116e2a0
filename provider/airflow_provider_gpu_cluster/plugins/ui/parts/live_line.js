// A line on which a page hears what changes: a WebSocket; where a proxy lets none through, server-sent events; and where
// neither works, questions again and again. It is closed while nobody sees the page, and comes back by itself.

export const SOCKET = "socket";
export const EVENTS = "events";
export const POLLING = "polling";

const NEXT = { [SOCKET]: EVENTS, [EVENTS]: POLLING };
// How often a way may fail before anything was heard on it until the next one is tried.
const TRIES = 2;
const FIRST_WORD_MS = 10_000;
// The server gives a sign of life every 20 s.
const SILENCE_MS = 50_000;
const SHORTEST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
const POLL_MS = 5_000;
// After so long it is tried again whether a socket works by now.
const BETTER_MS = 300_000;

/** How long to wait before the next try: longer and longer, and not for all pages the same.
 *  @param {number} failures so far, one after another
 *  @param {() => number} random from 0 to 1 */
export function pauseMs(failures, random = Math.random) {
  return Math.min(LONGEST_PAUSE_MS, SHORTEST_PAUSE_MS * 2 ** Math.min(failures, 10)) * (0.5 + random());
}

export class LiveLine {
  /** @param {object} ways functions that open each way: {socket, events}(line) -> {close, send}, which call line.heard,
   *    line.failed; and poll(line) -> promise, false at the end
   *  @param {{onMessage: (message: object) => void, onHow: (how: string) => void}} told
   *  @param {{setTimeout, clearTimeout, random}} clock */
  constructor(ways, told, clock = { setTimeout: setTimeout.bind(globalThis), clearTimeout: clearTimeout.bind(globalThis), random: Math.random }) {
    this.ways = ways;
    this.told = told;
    this.clock = clock;
    this.how = SOCKET;
    this.failures = 0;
    this.unheard = 0;
    this.round = 0;
    this.end = null;
    this.timers = new Map();
    this.isOpen = false;
    this.wish = null;
  }

  /** Begin, or come back. */
  open() {
    if (this.isOpen) return;
    this.isOpen = true;
    this.failures = 0;
    this._connect();
  }

  /** Hear nothing more, until it is opened again. */
  close() {
    this.isOpen = false;
    this._drop();
  }

  /** Say what the page wants to hear, now and after each time that the line has broken. */
  ask(wish) {
    const before = JSON.stringify(this.wish);
    this.wish = wish;
    if (!this.isOpen || before === JSON.stringify(wish)) return;
    if (this.how === SOCKET) this.end?.send(wish);
    // An event stream is told in its address.
    else if (this.how === EVENTS) this._connect();
  }

  _connect() {
    this._drop();
    const round = this.round;
    const isNow = () => this.isOpen && this.round === round;
    if (this.how === POLLING) {
      this._set("better", BETTER_MS, () => {
        this.how = SOCKET;
        this.unheard = 0;
        this._connect();
      });
      this.told.onHow(POLLING);
      this._poll(isNow);
      return;
    }
    let isHeard = false;
    this._set("silence", FIRST_WORD_MS, () => this._failed(isHeard));
    this.end = this.ways[this.how]({
      wish: this.wish,
      heard: (message) => {
        if (!isNow()) return;
        isHeard = true;
        this.failures = this.unheard = 0;
        this._set("silence", SILENCE_MS, () => this._failed(true));
        this.told.onHow(this.how);
        this.told.onMessage(message);
        if (message.type === "gone") this.close();
      },
      failed: () => isNow() && this._failed(isHeard),
    });
  }

  _failed(wasHeard) {
    this._drop();
    this.failures += 1;
    if (!wasHeard) {
      this.unheard += 1;
      if (this.unheard >= TRIES) {
        this.how = NEXT[this.how];
        this.unheard = 0;
        this.failures = 0;
      }
    }
    this._set("again", pauseMs(this.failures, this.clock.random), () => this._connect());
  }

  async _poll(isNow) {
    const goesOn = await this.ways.poll((message) => isNow() && this.told.onMessage(message));
    if (!isNow()) return;
    if (goesOn) this._set("poll", POLL_MS * (0.8 + 0.4 * this.clock.random()), () => this._poll(isNow));
    else this.close();
  }

  _drop() {
    this.round += 1;
    for (const timer of this.timers.values()) this.clock.clearTimeout(timer);
    this.timers.clear();
    this.end?.close();
    this.end = null;
  }

  _set(name, ms, act) {
    this.clock.clearTimeout(this.timers.get(name));
    this.timers.set(name, this.clock.setTimeout(act, ms));
  }
}
