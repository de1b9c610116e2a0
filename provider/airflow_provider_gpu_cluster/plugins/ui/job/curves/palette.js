// Colours and dashes of curves. People who see colours in other ways tell these apart, and the dashes tell them
// without any colour. Each has a contrast of 3:1 and more with its background; tests/ui/palette.test.js checks that.

/** After Okabe and Ito, and Paul Tol; darker on light grounds and lighter on dark ones. */
export const LIGHT = ["#0072b2", "#d55e00", "#008a65", "#aa3377", "#806600", "#332288", "#2e2e2e", "#b3003c"];
export const DARK = ["#56b4e9", "#f0a030", "#2fc79a", "#ee88bb", "#f0e442", "#a99bf0", "#e6e6e6", "#ff8a70"];

const DASHES = [[], [8, 3], [2, 3], [10, 3, 2, 3], [14, 4], [5, 5], [12, 3, 2, 3, 2, 3], [2, 6]];

/** Colour and dash of the curve of that number, in the order in which they are drawn.
 *  @param {number} number @param {boolean} isDark */
export const lookOf = (number, isDark) => ({
  color: (isDark ? DARK : LIGHT)[number % LIGHT.length],
  // The second round has other pairs of colour and dash than the first.
  dash: DASHES[(number + Math.floor(number / LIGHT.length)) % DASHES.length],
});

/** A colour that lets through what is behind it. @param {string} color "#rrggbb" @param {number} share */
export const faint = (color, share) => color + Math.round(share * 255).toString(16).padStart(2, "0");
