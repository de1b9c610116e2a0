// The colours of a terminal on a light and on a dark page, such that the text can be read on both. No React.

/** @typedef {import("./ansi.js").Style} Style
 *  @typedef {[number, number, number]} Rgb
 *  @typedef {{color: string | null, background: string | null}} Look null: as the text around it */

// The grounds of the page, and its text, as Airflow's theme has them.
const PAGES = {
  light: { ground: [250, 250, 250], text: [24, 24, 27] },
  dark: { ground: [17, 17, 17], text: [250, 250, 250] },
};
// Black, red, green, yellow, blue, magenta, cyan, white, and the bright ones.
const SIXTEEN = [
  [0, 0, 0], [205, 49, 49], [13, 143, 80], [160, 110, 0], [36, 114, 200], [188, 63, 188], [17, 138, 165], [200, 200, 200],
  [102, 102, 102], [241, 76, 76], [35, 209, 139], [229, 200, 16], [59, 142, 234], [214, 112, 214], [41, 184, 219], [255, 255, 255],
];
/** As little contrast as text may have; see WCAG 1.4.3. */
export const LEAST_CONTRAST = 4.5;

const MOST_KEPT = 500;
const kept = new Map();

/** The colours of a style on either page.
 *  @param {Style} style
 *  @returns {{light: Look, dark: Look}} */
export function coloursOf(style) {
  const key = JSON.stringify([style.fg, style.bg, style.inverse, style.dim]);
  let found = kept.get(key);
  if (found === undefined) {
    found = { light: look(style, PAGES.light), dark: look(style, PAGES.dark) };
    if (kept.size >= MOST_KEPT) kept.clear();
    kept.set(key, found);
  }
  return found;
}

function look({ fg, bg, inverse, dim }, page) {
  if (fg === undefined && bg === undefined && !inverse && !dim) return { color: null, background: null };
  let [text, ground] = [rgb(fg) ?? page.text, rgb(bg) ?? page.ground];
  if (inverse) [text, ground] = [ground, text];
  if (dim) text = mixed(text, ground, 0.35);
  const hasGround = bg !== undefined || inverse;
  return { color: css(readable(text, ground)), background: hasGround ? css(ground) : null };
}

const rgb = (colour) => (typeof colour === "number" ? SIXTEEN[colour] : colour);

const css = (colour) => `#${colour.map((one) => Math.round(one).toString(16).padStart(2, "0")).join("")}`;

const mixed = (one, other, share) => one.map((value, index) => value + (other[index] - value) * share);

/** A colour, or the nearest one to it in the direction of black or white that can be read on the ground.
 *  @param {Rgb} text
 *  @param {Rgb} ground
 *  @returns {Rgb} */
export function readable(text, ground) {
  const ends = [[0, 0, 0], [255, 255, 255]];
  const end = contrast(ends[0], ground) >= contrast(ends[1], ground) ? ends[0] : ends[1];
  for (let share = 0; share < 1; share += 0.1) {
    const colour = mixed(text, end, share).map(Math.round);
    if (contrast(colour, ground) >= LEAST_CONTRAST) return colour;
  }
  return end;
}

/** The contrast of two colours, from 1 to 21; see WCAG.
 *  @param {Rgb} one
 *  @param {Rgb} other */
export function contrast(one, other) {
  const [low, high] = [brightness(one), brightness(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function brightness(colour) {
  const [red, green, blue] = colour.map((one) => (one <= 10.31 ? one / 3294.6 : ((one / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
