// Reads the beginning of a CSV or TSV file. No React.

const MOST_ROWS = 200;
const MOST_COLUMNS = 60;
const MOST_LETTERS = 300;
const SEPARATORS = [",", "\t", ";"];

/**
 * The first rows of a table, after RFC 4180; a quote that is never closed ends with the text.
 *
 * @param {string} text
 * @param {{separator?: string, mostRows?: number, mostColumns?: number}} how the separator is found by default
 * @returns {{rows: string[][], columns: number, shownColumns: number, hasMore: boolean}} all rows have as many cells
 */
export function parseDelimited(text, { separator = separatorOf(text), mostRows = MOST_ROWS, mostColumns = MOST_COLUMNS } = {}) {
  const rows = [];
  let [row, columns, at] = [[], 0, 0];
  let count = 0;
  while (at < text.length && rows.length < mostRows) {
    const [cell, next] = text[at] === '"' ? quoted(text, at, separator) : plain(text, at, separator);
    if (count++ < mostColumns) row.push(cell.length > MOST_LETTERS ? `${cell.slice(0, MOST_LETTERS)}…` : cell);
    at = next;
    if (text[at] === separator) {
      at += 1;
      if (at < text.length && text[at] !== "\n" && text[at] !== "\r") continue;
      if (count++ < mostColumns) row.push("");
    }
    if (text[at] === "\r") at += 1;
    if (text[at] === "\n") at += 1;
    columns = Math.max(columns, count);
    rows.push(row);
    [row, count] = [[], 0];
  }
  const shownColumns = Math.min(columns, mostColumns);
  for (const one of rows) while (one.length < shownColumns) one.push("");
  return { rows, columns, shownColumns, hasMore: at < text.length };
}

function plain(text, at, separator) {
  let end = at;
  while (end < text.length && text[end] !== separator && text[end] !== "\n" && text[end] !== "\r") end += 1;
  return [text.slice(at, end), end];
}

function quoted(text, at, separator) {
  let cell = "";
  let from = at + 1;
  for (;;) {
    const end = text.indexOf('"', from);
    if (end < 0) return [cell + text.slice(from), text.length];
    cell += text.slice(from, end);
    if (text[end + 1] !== '"') {
      const [rest, next] = plain(text, end + 1, separator);
      return [cell + rest, next];
    }
    cell += '"';
    from = end + 2;
  }
}

/** What separates the cells of a text: whatever its first line has most of. */
export function separatorOf(text) {
  const line = text.slice(0, 10_000).split(/\r?\n/, 1)[0];
  const counts = SEPARATORS.map((separator) => line.split(separator).length);
  return SEPARATORS[counts.indexOf(Math.max(...counts))];
}
