"""Tasks of one process share the answers of clusters, and spread over what these offer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import MOST_JOBS, Appraisal, AppraiseReply, JobToAppraise
from airflow_provider_gpu_cluster.pools.answers import FRESH_S, SharedAnswers
from airflow_provider_gpu_cluster.pools.offer import Member, Offer
from airflow_provider_gpu_cluster.pools.pool import Pool
from tests.harness.patience import PATIENCE_S

POOL = Pool((Member("a"), Member("b")))


def job(job_id: str, **spec: Any) -> JobToAppraise:
    needs: Any = {"gpus": 1, **spec}
    return {"job_id": job_id, "spec": needs, "inputs": []}


class Clusters:
    """
    Clusters that answer when they are told to: a fake, as a real one cannot be held up at will.

    :param free: how many GPUs of each are free, of as many.
    """

    def __init__(self, **free: int) -> None:
        self.now = 100.0
        self.free = dict(free)
        self.starts_in_s: dict[str, float | None] = {}
        self.asked: list[tuple[str, list[str]]] = []
        self.held: dict[str, list[Callable[[], None]]] = {}
        self.errors: dict[str, GpuClusterError] = {}

    def call(self, conn_id: str, request: dict[str, Any]) -> Future[AppraiseReply]:
        future: Future[AppraiseReply] = Future()
        self.asked.append((conn_id, [one["job_id"] for one in request["jobs"]]))

        def answer() -> None:
            if conn_id in self.errors:
                future.set_exception(self.errors[conn_id])
            else:
                future.set_result({"jobs": [self._appraisal(conn_id, one) for one in request["jobs"]], "now": 0.0})

        if conn_id in self.held:
            self.held[conn_id].append(answer)
        else:
            answer()
        return future

    def _appraisal(self, conn_id: str, wanted: JobToAppraise) -> Appraisal:
        free = self.free[conn_id]
        appraisal: Appraisal = {"fits": True, "free_gpus": free, "gpus": 8, "placed": {"kind": wanted["job_id"]}}
        start = self.starts_in_s.get(conn_id, 0.0 if free >= wanted["spec"]["gpus"] else None)
        if start is not None:
            appraisal["starts_in_s"] = start
        return appraisal

    def let_answer(self, conn_id: str) -> None:
        held = self.held.get(conn_id, [])
        while held:
            held.pop(0)()

    def shared(self) -> SharedAnswers:
        return SharedAnswers(self.call, clock=lambda: self.now)


def offers_of(answers: SharedAnswers, wanted: JobToAppraise, **how: Any) -> list[Offer]:
    return answers.offers_of(POOL, [wanted], **how)[0]


def place(answers: SharedAnswers, job_id: str, **spec: Any) -> str:
    wanted = job(job_id, **spec)
    return answers.choose(wanted, offers_of(answers, wanted)).offer.conn_id


# -- shared answers


def test_one_question_is_enough_for_all_that_ask_while_a_cluster_thinks() -> None:
    clusters = Clusters(a=8, b=8)
    clusters.held = {"a": [], "b": []}
    answers = clusters.shared()
    with ThreadPoolExecutor(50) as threads:
        asking = [threads.submit(offers_of, answers, job(f"j{number}")) for number in range(50)]
        while sum(len(line.questions) for line in answers._lines.values()) < 100:
            threading.Event().wait(0.005)
        for name in ("a", "a", "b", "b"):
            clusters.let_answer(name)
        found = [future.result(PATIENCE_S) for future in asking]
    assert [offer.placed for offer, _ in found] == [{"kind": f"j{number}"} for number in range(50)]
    assert Counter(conn_id for conn_id, _ in clusters.asked) == {"a": 2, "b": 2}
    assert sorted(len(jobs) for _, jobs in clusters.asked) == [1, 1, 49, 49]


def test_answers_are_used_while_they_are_fresh() -> None:
    clusters = Clusters(a=8, b=8)
    answers = clusters.shared()
    offers_of(answers, job("j"))
    clusters.now += FRESH_S
    offers_of(answers, job("j"))
    assert len(clusters.asked) == 2
    clusters.now += 0.1
    offers_of(answers, job("j"))
    assert len(clusters.asked) == 4
    # Nothing is kept of what is old.
    assert [len(line.questions) for line in answers._lines.values()] == [1, 1]


def test_of_another_job_that_needs_the_same_the_answer_will_do_if_what_is_known_of_the_job_itself_is_not_wanted() -> (
    None
):
    clusters = Clusters(a=8, b=8)
    answers = clusters.shared()
    first, again, other = (
        offers_of(answers, wanted, with_placed=False)[0] for wanted in (job("j1"), job("j2"), job("j3", gpus=2))
    )
    assert (first.placed, again.placed, other.placed) == ({"kind": "j1"}, None, {"kind": "j3"})
    assert [jobs for _, jobs in clusters.asked] == [["j1"], ["j1"], ["j3"], ["j3"]]
    assert offers_of(answers, job("j2"))[0].placed == {"kind": "j2"}


def test_more_jobs_than_a_cluster_takes_at_once_are_asked_in_parts() -> None:
    clusters = Clusters(a=8, b=8)
    clusters.held = {"a": []}
    answers = clusters.shared()
    questions = [answers._ask("a", job(f"j{number}"), True) for number in range(MOST_JOBS + 2)]
    clusters.let_answer("a")
    assert all(question.answer.done() for question in questions)
    assert [len(jobs) for _, jobs in clusters.asked] == [1, MOST_JOBS, 1]


def test_a_silent_cluster_keeps_one_waiting_and_the_next_not_again() -> None:
    clusters = Clusters(a=8, b=8)
    clusters.held = {"b": []}
    answers = clusters.shared()
    fast, silent = offers_of(answers, job("j1"), wait_s=0.1)
    assert (fast.fits, silent.answered, silent.why_not) == (True, False, "it has not answered in time")
    clusters.now += 0.2
    fast, silent = offers_of(answers, job("j2"), wait_s=0.1)
    assert (fast.fits, silent.answered) == (True, False)
    # When it answers, it is asked what was to be asked meanwhile.
    clusters.let_answer("b")
    assert [jobs for conn_id, jobs in clusters.asked if conn_id == "b"] == [["j1"], ["j2"]]


@pytest.mark.parametrize("garbled", [True, False])
def test_an_error_is_a_row_and_is_asked_again_later(garbled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = Clusters(a=8, b=8)
    answers = clusters.shared()
    if garbled:
        monkeypatch.setattr(clusters, "_appraisal", lambda conn_id, wanted: {"fits": True})
        monkeypatch.setattr(
            clusters, "call", lambda conn_id, request, call=clusters.call: call(conn_id, {"jobs": request["jobs"] * 2})
        )
        answers = SharedAnswers(clusters.call, clock=lambda: clusters.now)
        why = "it was asked about 1 jobs, and told of 2"
    else:
        clusters.errors["a"] = GpuClusterConnectionError("no route to host")
        why = "no route to host"
    offer = offers_of(answers, job("j"))[0]
    assert (offer.fits, offer.answered) == (False, False)
    assert why in offer.why_not
    clusters.errors.clear()
    monkeypatch.undo()
    clusters.now += FRESH_S + 1
    if not garbled:
        assert offers_of(answers, job("j"))[0].fits


# -- spreading


def test_a_hundred_tasks_spread_over_what_is_free_and_then_over_the_lines() -> None:
    clusters = Clusters(a=8, b=4)
    answers = clusters.shared()
    where = [place(answers, f"j{number}", time_limit_s=3600) for number in range(12)]
    assert Counter(where) == {"a": 8, "b": 4}
    # Both have 8 GPUs in all, and b has been given less: it is given more of those that wait.
    more = Counter(place(answers, f"j{number}", time_limit_s=3600) for number in range(12, 100))
    assert more["a"] + 8 in range(44, 53), more


def test_tasks_in_threads_do_not_all_see_the_same_free_gpu() -> None:
    clusters = Clusters(a=8, b=8)
    answers = clusters.shared()
    jobs = [job(f"j{number}") for number in range(16)]
    seen = [offers_of(answers, one) for one in jobs]
    with ThreadPoolExecutor(16) as threads:
        chosen = list(threads.map(lambda wanted, offers: answers.choose(wanted, offers).offer, jobs, seen))
    assert Counter(offer.conn_id for offer in chosen) == {"a": 8, "b": 8}
    assert all(offer.starts_in_s == 0 for offer in chosen)


def test_a_promise_counts_until_an_answer_that_was_asked_for_after_it_was_kept() -> None:
    clusters = Clusters(a=1, b=0)
    answers = clusters.shared()

    def free_at_a() -> int | None:
        return offers_of(answers, job("other"))[0].free_gpus

    assert place(answers, "j") == "a"
    assert free_at_a() == 0
    clusters.now += FRESH_S + 1
    # The cluster is asked anew, and may not know of it.
    assert free_at_a() == 0
    answers.kept("j")
    assert free_at_a() == 0
    clusters.now += FRESH_S + 1
    clusters.free["a"] = 5
    assert free_at_a() == 5


def test_a_promise_of_which_nothing_came_is_taken_back() -> None:
    clusters = Clusters(a=1, b=0)
    answers = clusters.shared()
    assert place(answers, "j") == "a"
    answers.dropped("j")
    assert offers_of(answers, job("other"))[0].free_gpus == 1


def test_a_promise_of_which_nothing_is_heard_is_forgotten() -> None:
    clusters = Clusters(a=1, b=0)
    answers = clusters.shared()
    assert place(answers, "j") == "a"
    clusters.now += 61
    assert offers_of(answers, job("other"))[0].free_gpus == 1


def test_a_job_that_chooses_again_has_one_promise() -> None:
    clusters = Clusters(a=1, b=1)
    answers = clusters.shared()
    assert [place(answers, "j"), place(answers, "j")] == ["a", "b"]
    assert [offer.free_gpus for offer in offers_of(answers, job("other"))] == [1, 0]


def test_a_line_grows_by_the_work_that_was_put_into_it() -> None:
    clusters = Clusters(a=0, b=0)
    clusters.starts_in_s = {"a": 600.0, "b": 1500.0}
    answers = clusters.shared()
    where = [place(answers, f"j{number}", gpus=8, time_limit_s=600) for number in range(3)]
    assert where == ["a", "a", "b"]
    offers = offers_of(answers, job("other"))
    assert [(offer.starts_in_s, offer.waiting) for offer in offers] == [(1800.0, 2), (2100.0, 1)]


def test_gpus_of_another_type_are_not_taken_off() -> None:
    clusters = Clusters(a=1, b=0)
    answers = clusters.shared()
    assert place(answers, "j", gpu_type="H100") == "a"
    free = [offers_of(answers, job("x", gpu_type=gpu_type))[0].free_gpus for gpu_type in ("A100", "h100", None)]
    assert free == [1, 0, 0]


def test_offers_of_elsewhere_are_left_as_they_are() -> None:
    plain: Sequence[Offer] = [Offer(Member("a"), True, starts_in_s=0.0, free_gpus=1)]
    answers = Clusters(a=1).shared()
    assert answers.choose(job("j"), plain).offer is plain[0]
    assert answers.choose(job("k"), plain).offer is plain[0]
