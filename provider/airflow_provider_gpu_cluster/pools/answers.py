"""What the clusters of pools answer, shared by the tasks of one process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_gpu_cluster.exceptions import GpuClusterConnectionError, GpuClusterError
from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import MOST_JOBS
from airflow_provider_gpu_cluster.pools.asking import WAIT_S, appraised
from airflow_provider_gpu_cluster.pools.choice import Choice, choose
from airflow_provider_gpu_cluster.pools.offer import Member, Offer, gpus_of, offer_of, offer_without_answer
from airflow_provider_gpu_cluster.pools.pool import SOONEST, Policy, Pool
from airflow_provider_gpu_cluster.pools.promises import Promises, shared
from airflow_provider_gpu_cluster.pools.side_by_side import PATIENCE_S

if TYPE_CHECKING:
    from airflow_provider_gpu_cluster.gpu_run.protocol.appraisal import Appraisal, AppraiseReply, JobToAppraise

# For how long an answer may be used, in seconds.
FRESH_S = 2.0


@dataclass(frozen=True)
class _Answer:
    appraisal: Appraisal
    asked_at: float
    clock_ahead_s: float


@dataclass
class _Question:
    """
    About one job.

    :param line: to which cluster.
    :param asked_at: when the cluster was asked; None if it was not yet.
    """

    job: JobToAppraise
    line: _Line
    answer: Future[_Answer] = field(default_factory=Future)
    asked_at: float | None = None


class _Line:
    """The questions to one cluster, of which it is asked the new ones as soon as it has answered those before."""

    def __init__(self) -> None:
        self.questions: dict[str, _Question] = {}
        self.asked_at: float | None = None
        """When it was asked what it has not answered yet; None if it has answered all."""


class SharedAnswers:
    """
    Asks clusters once about all jobs for which tasks of this process want to know something at the same time.

    What these tasks choose is taken off what others see, so that not all of them choose the same free GPUs. The methods
    work from any thread.

    :param call: sends a request of the verb ``appraise`` to a cluster, without waiting for the reply.
    :param clock: tells the time in seconds.
    """

    def __init__(
        self,
        call: Callable[[str, dict[str, Any]], Future[Any]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call = call
        self._clock = clock
        # Answers that are there already come while the lock is held.
        self._lock = threading.RLock()
        self._lines: dict[str, _Line] = {}
        self._promises = Promises(clock)

    def offers_of(
        self,
        pool: Pool,
        jobs: Sequence[JobToAppraise],
        *,
        wait_s: float = WAIT_S,
        with_placed: bool = True,
    ) -> list[list[Offer]]:
        """
        Return what :func:`.asking.offers_of` does, from answers that are fresh.

        :param with_placed: whether what the clusters know of the jobs themselves is wanted. Otherwise, what a cluster
            has answered about a job that needs the same will do.
        """
        rows = [[self._ask(conn_id, job, with_placed) for conn_id in pool.conn_ids] for job in jobs]
        self._wait(rows, wait_s)
        with self._lock:
            return [
                [self._offer(member, question, job) for member, question in zip(pool.members, row, strict=True)]
                for job, row in zip(jobs, rows, strict=True)
            ]

    def choose(self, job: JobToAppraise, offers: Sequence[Offer], policy: Policy = SOONEST) -> Choice:
        """
        Choose as :func:`.choice.choose` does, with all that other tasks have chosen meanwhile, and take it into account
        for those that follow.

        Call :meth:`kept` or :meth:`dropped` when it is known what became of it.
        """
        with self._lock:
            choice = choose([self._promises.counted_in(offer) for offer in offers], policy)
            self._promises.make(choice.offer.conn_id, job)
            return choice

    def kept(self, job_id: str) -> None:
        """Note that the chosen cluster has accepted a claim of the job, or the job itself."""
        with self._lock:
            self._promises.keep(job_id)

    def dropped(self, job_id: str) -> None:
        """Note that the job was not placed where it was to be."""
        with self._lock:
            self._promises.drop(job_id)

    # -- asking

    def _ask(self, conn_id: str, job: JobToAppraise, with_placed: bool) -> _Question:
        key = json.dumps([job["job_id"] if with_placed else None, job["spec"], job["inputs"]], sort_keys=True)
        with self._lock:
            line = self._lines.setdefault(conn_id, _Line())
            question = line.questions.get(key)
            if question is None or not self._is_fresh(question):
                question = line.questions[key] = _Question(job, line)
                if line.asked_at is None:
                    self._send(conn_id, line)
            return question

    def _is_fresh(self, question: _Question) -> bool:
        return question.asked_at is None or self._clock() - question.asked_at <= FRESH_S

    def _send(self, conn_id: str, line: _Line) -> None:
        """Ask a cluster what is new."""
        line.questions = {key: question for key, question in line.questions.items() if self._is_fresh(question)}
        new = [question for question in line.questions.values() if question.asked_at is None][:MOST_JOBS]
        if not new:
            return
        line.asked_at = self._clock()
        for question in new:
            question.asked_at = line.asked_at
        request = {"jobs": [question.job for question in new]}
        self._call(conn_id, request).add_done_callback(partial(self._take, conn_id, line, new))

    def _take(self, conn_id: str, line: _Line, asked: list[_Question], call: Future[AppraiseReply]) -> None:
        """Take a reply, and ask what has become new meanwhile."""
        with self._lock:
            line.asked_at = None
            self._send(conn_id, line)
        try:
            reply = appraised(call.result(), came_at=time.time(), count=len(asked), where=conn_id)
        except GpuClusterError as error:
            for question in asked:
                question.answer.set_exception(error)
            return
        for question, appraisal in zip(asked, reply.appraisals, strict=True):
            assert question.asked_at is not None
            question.answer.set_result(_Answer(appraisal, question.asked_at, reply.clock_ahead_s))

    def _wait(self, rows: Sequence[Sequence[_Question]], wait_s: float) -> None:
        """Wait for answers; when each job fits somewhere, not long for those that are silent."""
        began = time.monotonic()
        late = {question.answer for row in rows for question in row if self._is_late(question.line, wait_s)}
        waiting = {question.answer for row in rows for question in row}
        while True:
            is_enough = all(any(map(_fits, row)) for row in rows)
            awaited = waiting - late if is_enough else waiting
            left_s = began + (wait_s if is_enough else max(wait_s, PATIENCE_S)) - time.monotonic()
            if not awaited or left_s <= 0:
                return
            waiting -= wait(awaited, left_s, FIRST_COMPLETED).done

    def _is_late(self, line: _Line, wait_s: float) -> bool:
        """Return whether a cluster has kept others waiting for long already."""
        asked_at = line.asked_at
        return asked_at is not None and self._clock() - asked_at > wait_s

    # -- what came of it

    def _offer(self, member: Member, question: _Question, job: JobToAppraise) -> Offer:
        needs_gpus = gpus_of(job)
        if not question.answer.done():
            silence = GpuClusterConnectionError("it has not answered in time")
            return offer_without_answer(member, silence, needs_gpus=needs_gpus)
        error = question.answer.exception()
        if error is not None:
            return offer_without_answer(member, error, needs_gpus=needs_gpus)
        answer = question.answer.result()
        offer = offer_of(member, answer.appraisal, needs_gpus=needs_gpus, clock_ahead_s=answer.clock_ahead_s)
        if question.job["job_id"] != job["job_id"]:
            offer = replace(offer, placed=None)
        return self._promises.counted_in(shared(offer, asked_at=answer.asked_at, gpu_type=job["spec"].get("gpu_type")))


def _fits(question: _Question) -> bool:
    answer = question.answer
    return answer.done() and answer.exception() is None and answer.result().appraisal["fits"]
