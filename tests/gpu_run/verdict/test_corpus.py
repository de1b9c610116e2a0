"""Every output of the corpus is told as what it is."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from airflow_provider_gpu_cluster.gpu_run import protocol
from airflow_provider_gpu_cluster.gpu_run.verdict.judge import Verdict
from airflow_provider_gpu_cluster.gpu_run.verdict.kinds import KINDS, OTHER_KINDS, names
from tests.gpu_run.verdict.corpus.cases import Case, cases

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
CASES = list(cases())


def test_how_each_is_told() -> None:
    # One test, since most of the time of so many small ones would be spent between them.
    wrong = [f"{case.name} is {case.kind}: {verdict}" for case in CASES if _is_wrong(case, verdict := case.verdict())]
    assert not wrong, "\n".join(wrong)


def _is_wrong(case: Case, verdict: Verdict) -> bool:
    return (
        verdict.kind != case.kind
        or case.says not in verdict.message
        or verdict.reason not in protocol.REASONS
        or (verdict.remedy == "") != (case.kind == protocol.USER_ERROR)
        or "\n" in verdict.message
    )


def test_the_corpus_has_every_kind_whose_signs_are_in_an_output() -> None:
    counts = Counter(case.kind for case in CASES)
    assert {kind.name for kind in KINDS if kind.raised or kind.printed} <= set(counts)
    assert counts["user_error"] >= 50
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_table() -> None:
    for kind in KINDS:
        assert kind.reason in protocol.REASONS, kind
        assert kind.remedy.endswith((".", ")")), kind
        assert kind.raised or kind.printed or kind.signals, kind
    assert set(protocol.REASONS) <= set(names())
    assert not {kind.name for kind in KINDS} & set(OTHER_KINDS)


def test_the_page_has_the_table() -> None:
    from write_verdicts import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run: python scripts/write_verdicts.py"
    assert all(f"| `{name}` |" in page() for name in names())
