// A line that a program has printed for a terminal, as pieces of text with styles. No React.
//
// Colours are drawn, of a progress bar that writes over itself the last state is kept, and other escape sequences are
// left out. What would be invisible, or would change the order of the text around it, is shown as what it is.

/** @typedef {{fg?: Colour, bg?: Colour, bold?: boolean, dim?: boolean, italic?: boolean, underline?: boolean, strike?: boolean, inverse?: boolean}} Style
 *  @typedef {number | [number, number, number]} Colour one of the terminal's 16, or red, green and blue
 *  @typedef {{text: string, style: Style | null, isMark?: boolean}} Piece `isMark`: it stands for a character that cannot be seen */

/** So many pieces one line may have; the rest of it is plain. */
const MOST_PIECES = 500;

// ECMA-48: control sequences, strings for the terminal itself such as titles and addresses, and the others.
const SEQUENCE = /\u001b\[([0-?]*)([ -/]*)([@-~]?)|\u001b[\]PX^_][^\u0007\u001b]{0,4096}(?:\u0007|\u001b\\)|\u001b[ -/]*[0-~]?/g;

// Controls but for the tab; marks of direction; what has no width; what some take for the end of a line; tags.
const UNSEEN =
  /[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\udb40[\udc00-\udfff]/g;

/** What of a line stays to be seen in a terminal: the text after the last return to its start.
 *  @param {string} line */
export function lastState(line) {
  if (!line.includes("\r")) return line;
  const end = line.length - (line.match(/\r+$/)?.[0].length ?? 0);
  return line.slice(line.lastIndexOf("\r", end - 1) + 1, end);
}

/**
 * The pieces of a line.
 *
 * @param {string} line without its end
 * @returns {Piece[]}
 */
export function piecesOf(line) {
  const text = overwritten(lastState(line));
  const pieces = [];
  let style = {};
  let at = 0;
  SEQUENCE.lastIndex = 0;
  for (let found; pieces.length < MOST_PIECES && (found = SEQUENCE.exec(text)); ) {
    add(pieces, text.slice(at, found.index), style);
    at = SEQUENCE.lastIndex;
    if (found[3] === "m" && !found[2]) style = styleAfter(style, found[1]);
  }
  add(pieces, pieces.length < MOST_PIECES ? text.slice(at) : text.slice(at).replace(SEQUENCE, ""), style);
  return pieces;
}

/** The text of a line as it is seen, for a copy of it. @param {string} line */
export const plainText = (line) => piecesOf(line).map(({ text }) => text).join("");

/** Let a backspace take away the character before it, as manual pages print bold letters. */
function overwritten(text) {
  if (!text.includes("\b")) return text;
  const seen = [];
  for (const letter of text) letter === "\b" ? seen.pop() : seen.push(letter);
  return seen.join("");
}

function add(pieces, text, style) {
  const drawn = Object.keys(style).length ? style : null;
  let at = 0;
  for (const found of text.matchAll(UNSEEN)) {
    if (pieces.length >= MOST_PIECES) break;
    if (isJoiner(text, found.index)) continue;
    if (found.index > at) pieces.push({ text: text.slice(at, found.index), style: drawn });
    pieces.push({ text: nameOf(found[0]), style: drawn, isMark: true });
    at = found.index + found[0].length;
  }
  const rest = text.slice(at);
  if (rest) pieces.push({ text: pieces.length >= MOST_PIECES ? rest.replace(UNSEEN, nameOf) : rest, style: drawn });
}

/** Whether there is a joiner of two letters or pictures that belong together, as many languages write them. */
function isJoiner(text, at) {
  if (text[at] !== "\u200d" && text[at] !== "\u200c") return false;
  return at > 0 && text.charCodeAt(at - 1) > 0x2ff && text.charCodeAt(at + 1) > 0x2ff && !isInvisible(text[at - 1]) && !isInvisible(text[at + 1]);
}

const isInvisible = (letter) => letter.match(UNSEEN) !== null && !/[\ud800-\udfff]/.test(letter);

function nameOf(letter) {
  const code = letter.codePointAt(0).toString(16);
  return code.length < 3 ? `\\x${code.padStart(2, "0")}` : `<U+${code.toUpperCase().padStart(4, "0")}>`;
}

/** A style after "select graphic rendition", such as "1;31".
 *  @param {Style} before
 *  @param {string} parameters
 *  @returns {Style} */
export function styleAfter(before, parameters) {
  const numbers = parameters.split(/[;:]/).slice(0, 64).map((one) => (one === "" ? 0 : Number(one)));
  const style = { ...before };
  for (let at = 0; at < numbers.length; at += 1) {
    const number = numbers[at];
    if (number === 0) for (const name of Object.keys(style)) delete style[name];
    else if (FLAGS[number]) style[FLAGS[number]] = true;
    else if (number === 22) off(style, "bold", "dim");
    else if (ENDS[number]) off(style, ENDS[number]);
    else if (number >= 30 && number <= 37) style.fg = number - 30;
    else if (number >= 40 && number <= 47) style.bg = number - 40;
    else if (number >= 90 && number <= 97) style.fg = number - 82;
    else if (number >= 100 && number <= 107) style.bg = number - 92;
    else if (number === 38 || number === 48) {
      const [colour, used] = colourAt(numbers, at + 1, parameters.includes(":"));
      if (colour !== null) style[number === 38 ? "fg" : "bg"] = colour;
      at += used;
    }
  }
  return style;
}

const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike", 21: "underline" };
const ENDS = { 23: "italic", 24: "underline", 27: "inverse", 29: "strike", 39: "fg", 49: "bg" };

function off(style, ...names) {
  for (const name of names) delete style[name];
}

/** The colour after 38 or 48, and how many numbers tell it. */
function colourAt(numbers, at, hasColons) {
  if (numbers[at] === 5) {
    const number = numbers[at + 1];
    return [Number.isInteger(number) && number >= 0 && number < 256 ? ofPalette(number) : null, 2];
  }
  if (numbers[at] === 2) {
    // With colons, the colour space may stand before the colour.
    const first = hasColons && numbers.length - at > 4 ? at + 2 : at + 1;
    const colour = numbers.slice(first, first + 3);
    const isRight = colour.length === 3 && colour.every((one) => Number.isInteger(one) && one >= 0 && one < 256);
    return [isRight ? colour : null, first + 2 - at + 1];
  }
  return [null, numbers.length];
}

function ofPalette(number) {
  if (number < 16) return number;
  if (number >= 232) return Array(3).fill(8 + 10 * (number - 232));
  const cube = number - 16;
  return [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((one) => (one ? 55 + 40 * one : 0));
}
