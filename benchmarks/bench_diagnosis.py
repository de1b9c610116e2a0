"""Precision and recall of the verdicts on the corpus of failed programs, of each kind, and how long a verdict takes."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence

from tests.gpu_run.verdict.corpus.cases import Case, cases


def main() -> None:
    every = list(cases())
    _measure("all outputs, as they are told now", every)
    held_out = [case for case in every if case.held_out]
    _measure("those that were held out, as they were told at first", held_out, at_first=True)


def _measure(what: str, some: Sequence[Case], *, at_first: bool = False) -> None:
    told: Counter[str] = Counter()
    right: Counter[str] = Counter()
    times = []
    false = 0
    for case in some:
        began = time.perf_counter()
        kind = case.verdict().kind
        if at_first:
            kind = case.at_first or kind
        times.append(time.perf_counter() - began)
        told[kind] += 1
        right[kind] += kind == case.kind
        false += kind != case.kind == "user_error"
    expected = Counter(case.kind for case in some)
    print(f"\n{what}: {len(some)}, of which {sum(case.typed for case in some)} are typed after libraries' texts")
    print(f"{'kind':<22}{'outputs':>8}{'precision':>11}{'recall':>8}")
    for kind in sorted({*expected, *told}):
        precision = f"{right[kind] / told[kind]:.0%}" if told[kind] else "-"
        recall = f"{right[kind] / expected[kind]:.0%}" if expected[kind] else "-"
        print(f"{kind:<22}{expected[kind]:>8}{precision:>11}{recall:>8}")
    print(f"told right: {sum(right.values())} of {len(some)}; own errors told as something else: {false}")
    print(f"a verdict takes {statistics.median(times) * 1000:.1f} ms, at most {max(times) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
