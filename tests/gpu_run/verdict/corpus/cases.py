"""The corpus: outputs of programs that failed, kept as they came, and how each must be told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from airflow_provider_gpu_cluster.gpu_run.verdict.judge import Evidence, Verdict, judge

HERE = Path(__file__).parent
FILES = ("real.jsonl", "typed.jsonl", "later.jsonl", "given.jsonl")
_REPEATED = re.compile(r"^\[\[(\d+) x (.*)\]\]\n", re.MULTILINE)


class Case(NamedTuple):
    """
    An output.

    :param kind: how it must be told.
    :param says: what the sentence must contain.
    :param typed: it was typed after a library's texts, since its program needs a GPU or a service.
    :param held_out: it was written before the code was seen to tell it, so that the first answer is a measurement.
    :param at_first: that answer, if it was wrong.
    :param facts: what the host knew beside the output.
    """

    name: str
    kind: str
    exit: int
    output: str
    says: str = ""
    typed: bool = False
    held_out: bool = False
    at_first: str = ""
    facts: dict[str, Any] = {}

    def verdict(self) -> Verdict:
        """Return how it is told."""
        code = "/home/me/ml-jobs/job/code" if "/ml-jobs/job/" in self.output else f"/home/me/ml-jobs/{self.name}/code"
        return judge(Evidence(self.exit, None, self.output, code=code, **self.facts))


def cases() -> Iterator[Case]:
    """Return all outputs."""
    for file in FILES:
        for line in (HERE / file).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            row["output"] = _REPEATED.sub(_lines, row["output"])
            yield Case(**row)


def _lines(mark: re.Match[str]) -> str:
    count, text = int(mark.group(1)), mark.group(2)
    return "".join(text.replace("#", str(number)) + "\n" for number in range(count))
