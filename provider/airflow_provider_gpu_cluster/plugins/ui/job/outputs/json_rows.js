// Reads JSON as training code writes it, and makes rows of a tree of it. No React.

const MOST_CHILDREN = 100;
const MOST_ROWS = 2000;
const DEEPEST = 50;
const MOST_LETTERS = 500;
const BARE = /"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/gs;

/**
 * The value of a text of JSON, or of JSON lines; NaN and Infinity, which are no JSON, become texts.
 *
 * @param {string} text
 * @param {boolean} isLines each line is a value; the last may be cut, and is then left out
 * @returns {{value: any} | {problem: string}}
 */
export function parseJson(text, isLines = false) {
  const sound = text.replace(BARE, (word) => (word[0] === '"' ? word : `"${word}"`));
  try {
    if (!isLines) return { value: JSON.parse(sound) };
    const lines = sound.split("\n").filter((line) => line.trim());
    const values = lines.slice(0, -1).map((line) => JSON.parse(line));
    try {
      values.push(JSON.parse(lines.at(-1) ?? "null"));
    } catch (error) {
      if (lines.length < 2) throw error;
    }
    return { value: values };
  } catch (error) {
    return { problem: error.message };
  }
}

/**
 * The rows of a tree that are to be seen.
 *
 * @param {any} value
 * @param {Set<string>} open paths of the objects and lists that are open
 * @returns {{path: string, depth: number, name: string, text: string, children: number, isOpen: boolean}[]}
 */
export function treeRows(value, open) {
  const rows = [];
  const add = (item, name, path, depth) => {
    if (rows.length >= MOST_ROWS) return;
    const entries = entriesOf(item);
    const isOpen = entries !== null && open.has(path) && depth < DEEPEST;
    rows.push({ path, depth, name, text: textOf(item, entries), children: entries?.length ?? 0, isOpen });
    if (!isOpen) return;
    for (const [key, child] of entries.slice(0, MOST_CHILDREN)) add(child, key, `${path}/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`, depth + 1);
    if (entries.length > MOST_CHILDREN && rows.length < MOST_ROWS) {
      const more = entries.length - MOST_CHILDREN;
      rows.push({ path: `${path}/…`, depth: depth + 1, name: "", text: `and ${more.toLocaleString("en-US")} more`, children: 0, isOpen: false });
    }
  };
  add(value, "", "", 0);
  return rows;
}

function entriesOf(value) {
  if (Array.isArray(value)) return value.map((item, index) => [String(index), item]);
  return value !== null && typeof value === "object" ? Object.entries(value) : null;
}

function textOf(value, entries) {
  if (entries !== null) return Array.isArray(value) ? `list of ${entries.length}` : `object of ${entries.length}`;
  const text = JSON.stringify(value) ?? "null";
  return text.length > MOST_LETTERS ? `${text.slice(0, MOST_LETTERS)}…` : text;
}
