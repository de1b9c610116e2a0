// The part of a log that a page holds: rows of windows that lie next to each other. No React.
//
// A page never holds more than some thousand rows, however large the log is and for however long it is watched: what is
// farthest from the reader is dropped.

import { lastState } from "./ansi.js";

/** @typedef {{offset: number, size: number, text: string, isStart: boolean, isEnd: boolean}} Row
 *    a line, or a piece of a long one: its place and bytes in the log, and whether the line begins and ends with it
 *  @typedef {{offset: number, end: number, rows: Row[], chars: number}} Block
 *  @typedef {{blocks: Block[], file: string, log: number, size: number, start: number, stop: number, atEnd: boolean, grows: boolean, problem: string}} Held
 *  @typedef {{offset: number, end: number, lines: string[], bytes: number[], whole_start: boolean, whole_end: boolean, at_end: boolean,
 *    file: string, log: number, size: number, start: number, stop: number, grows: boolean, problem: string}} LogWindow */

/** Rows that a page holds, and characters in them. */
export const MOST_ROWS = 6000;
export const MOST_CHARS = 2_000_000;
/** Rows of one block, which is drawn anew when one of its rows changes. */
export const BLOCK_ROWS = 250;
/** Characters of one row. */
export const ROW_CHARS = 8192;

/** What a page holds of a log after it has got a window of it, and nothing else.
 *  @param {LogWindow} window
 *  @returns {Held} */
export const opened = (window) => ({ ...told(window), blocks: blocksOf(rowsOf(window)), atEnd: window.at_end });

/** The same, with a window behind what was held.
 *  @param {Held} held
 *  @param {LogWindow} window
 *  @returns {Held} the same object, if it does not lie there */
export function extended(held, window) {
  if (window.offset !== endOf(held)) return held;
  if (!held.blocks.length) return opened(window);
  if (window.file !== held.file) return held;
  const rows = rowsOf(window);
  const blocks = held.blocks.slice();
  const last = blocks.pop();
  const joined = [...last.rows];
  const before = joined[joined.length - 1];
  if (rows.length && before && !before.isEnd && !rows[0].isStart) {
    joined.pop();
    rows.splice(0, 1, ...split({ ...before, size: before.size + rows[0].size, text: before.text + rows[0].text, isEnd: rows[0].isEnd }));
  }
  blocks.push(...blocksOf([...joined, ...rows]));
  return dropped({ ...held, ...told(window), blocks, atEnd: window.at_end }, "first");
}

/** The same, with a window before what was held.
 *  @param {Held} held
 *  @param {LogWindow} window
 *  @returns {Held} the same object, if it does not lie there */
export function preceded(held, window) {
  if (window.file !== held.file || window.end !== startOf(held) || !window.lines.length) return held;
  const blocks = [...blocksOf(rowsOf(window)), ...held.blocks];
  return dropped({ ...held, ...told(window), blocks }, "last");
}

/** The same, told how large the log is by now, without more of it. */
export const grown = (held, window) => ({ ...held, size: window.size, stop: window.stop, grows: window.grows, atEnd: held.atEnd && endOf(held) >= window.end });

/** Where what is held begins. @param {Held} held */
export const startOf = (held) => held.blocks[0]?.offset ?? held.start;

/** Where what is held ends. @param {Held} held */
export const endOf = (held) => held.blocks[held.blocks.length - 1]?.end ?? held.start;

/** Whether a window is of the log that is held, and not of one that has taken its place or was cut. */
export const isSameLog = (held, window) => held.file === window.file && window.size >= endOf(held);

/** The row that has a place, or the first one behind it.
 *  @param {Held} held
 *  @returns {Row | null} */
export function rowAt(held, place) {
  for (const block of held.blocks) {
    if (place < block.end) return block.rows.find((row) => place < row.offset + row.size) ?? null;
  }
  return null;
}

/** How many rows are held. @param {Held} held */
export const countOf = (held) => held.blocks.reduce((count, block) => count + block.rows.length, 0);

const told = ({ file, log, size, start, stop, grows, problem }) => ({ file, log, size, start, stop, grows, problem });

function rowsOf(window) {
  const rows = [];
  let offset = window.offset;
  window.lines.forEach((text, index) => {
    const size = window.bytes[index];
    const isStart = index > 0 || window.whole_start;
    const isEnd = index < window.lines.length - 1 || window.whole_end;
    rows.push(...split({ offset, size, text, isStart, isEnd }));
    offset += size;
  });
  return rows;
}

/** Pieces of a row that is too long; their places are about right, which is enough to find them again. */
function split(row) {
  const text = row.text.length > ROW_CHARS / 4 ? lastState(row.text) : row.text;
  if (text.length <= ROW_CHARS) return [{ ...row, text }];
  const count = Math.ceil(text.length / ROW_CHARS);
  return Array.from({ length: count }, (_, index) => {
    const from = Math.floor((row.size * index) / count);
    const to = Math.floor((row.size * (index + 1)) / count);
    return {
      offset: row.offset + from,
      size: to - from,
      text: text.slice(index * ROW_CHARS, (index + 1) * ROW_CHARS),
      isStart: row.isStart && index === 0,
      isEnd: row.isEnd && index === count - 1,
    };
  });
}

function blocksOf(rows) {
  const blocks = [];
  for (let at = 0; at < rows.length; at += BLOCK_ROWS) {
    const part = rows.slice(at, at + BLOCK_ROWS);
    const last = part[part.length - 1];
    const chars = part.reduce((sum, row) => sum + row.text.length, 0);
    blocks.push({ offset: part[0].offset, end: last.offset + last.size, rows: part, chars });
  }
  return blocks;
}

function dropped(held, side) {
  const blocks = held.blocks.slice();
  let rows = countOf(held);
  let chars = blocks.reduce((sum, block) => sum + block.chars, 0);
  let atEnd = held.atEnd;
  while (blocks.length > 1 && (rows > MOST_ROWS || chars > MOST_CHARS)) {
    const gone = side === "first" ? blocks.shift() : blocks.pop();
    if (side === "last") atEnd = false;
    rows -= gone.rows.length;
    chars -= gone.chars;
  }
  return { ...held, blocks, atEnd };
}
