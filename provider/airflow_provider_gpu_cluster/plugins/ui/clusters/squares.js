// The squares of a node's GPUs as paths of a drawing, one for each state, since a page may have thousands. No React.

const SIZE = 11;
const STEP = SIZE + 3;

/**
 * @param {{state: string}[]} gpus
 * @returns {{width: number, height: number, shapes: {state: string, outline: string, filled: string}[]}} paths that are drawn,
 *   and those that are filled as well
 */
export function squares(gpus) {
  const shapes = new Map();
  gpus.forEach(({ state }, place) => {
    const x = place * STEP + 1;
    const shape = shapes.get(state) ?? { state, outline: "", filled: "" };
    const square = `M${x} 1h${SIZE}v${SIZE}h-${SIZE}z`;
    shape.outline += square;
    if (state === "leased") shape.filled += square;
    if (state === "other") shape.filled += `M${x} ${SIZE + 1}v-${SIZE}h${SIZE}z`;
    if (state === "down") shape.outline += `M${x} 1l${SIZE} ${SIZE}M${x + SIZE} 1l-${SIZE} ${SIZE}`;
    shapes.set(state, shape);
  });
  return { width: gpus.length * STEP, height: SIZE + 2, shapes: [...shapes.values()] };
}
