// Which place of the job is under the cursor, told to all charts.

/**
 * @typedef {{over: "x" | "t" | "at", value: number} | null} Place
 * @returns {{tell: (place: Place, from: object) => void, listen: (listener: (place: Place) => void, me: object) => () => void}}
 */
export function cursorBus() {
  const listeners = new Map();
  return {
    tell(place, from) {
      for (const [me, listener] of listeners) if (me !== from) listener(place);
    },
    listen(listener, me) {
      listeners.set(me, listener);
      return () => listeners.delete(me);
    },
  };
}

/** A value of one axis as one of another; null if nobody knows.
 *  @param {{timeOf: (x: number) => number | null, xOf: (t: number) => number | null}} places */
export function valueOver({ over, value }, wanted, places) {
  if (over === wanted) return value;
  if (over === "x" && wanted === "t") return places.timeOf(value);
  if (over === "t" && wanted === "x") return places.xOf(value);
  return null;
}
